//! Whether what `iptables-save` shows is what a plan says.

use crate::rules::{Chain, Plan, Rule};
use ipnet::IpNet;
use std::net::IpAddr;

/// The rules that one `iptables-save -t nat` showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    rules: Vec<Line>,
    /// Those of our own chains that are there, filled or empty.
    chains: Vec<Chain>,
    /// The rules elsewhere that lead into our chains, as shown.
    jumps: Vec<String>,
}

/// A rule in words, as comparable across versions of iptables: quotes are gone, addresses are in one form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line(Vec<String>);

impl Saved {
    /// Reads the output of `iptables-save`; lines that are neither rules nor chains do not count.
    pub fn parse(output: &str) -> Self {
        let declared = |chain: &Chain| {
            let begin = format!(":{} ", chain.name());
            output.lines().any(|line| line.starts_with(&begin))
        };
        let rules = || output.lines().filter(|line| line.starts_with("-A "));
        Self {
            rules: rules().map(Line::parse).collect(),
            chains: Chain::OURS.into_iter().filter(declared).collect(),
            jumps: rules()
                .filter(|line| Line::parse(line).leads_into_ours())
                .map(str::to_owned)
                .collect(),
        }
    }

    /// The input for `iptables-restore --noflush` that removes our chains, and nothing but them and what leads there;
    /// `None` when there are none.
    pub fn removal(&self) -> Option<String> {
        if self.chains.is_empty() {
            return None;
        }
        let jumps = self.jumps.iter().map(|jump| jump.replacen("-A ", "-D ", 1));
        let command = |verb| move |chain: &Chain| format!("{verb} {}", chain.name());
        let commands: Vec<_> = jumps
            .chain(self.chains.iter().map(command("-F")))
            .chain(self.chains.iter().map(command("-X")))
            .collect();
        Some(format!("*nat\n{}\nCOMMIT\n", commands.join("\n")))
    }

    /// The jumps of a plan that are not in the table yet.
    pub fn missing_jumps(&self, plan: &Plan) -> Vec<Rule> {
        plan.jumps
            .iter()
            .filter(|jump| !self.rules.contains(&Line::of(jump)))
            .cloned()
            .collect()
    }

    /// What differs from the plan, a sentence each; empty when the plan is true.
    pub fn differences(&self, plan: &Plan) -> Vec<String> {
        let mut differences: Vec<_> = self
            .missing_jumps(plan)
            .iter()
            .map(|jump| format!("missing: {jump}"))
            .collect();
        for chain in Chain::OURS {
            let wanted: Vec<&Rule> = plan.rules.iter().filter(|rule| rule.chain == chain).collect();
            let found: Vec<&Line> = self.rules.iter().filter(|line| line.is_in(chain)).collect();
            differences.extend(differ(chain, &wanted, &found));
        }
        differences
    }
}

fn differ(chain: Chain, wanted: &[&Rule], found: &[&Line]) -> Vec<String> {
    let lines: Vec<Line> = wanted.iter().map(|rule| Line::of(rule)).collect();
    if lines.iter().eq(found.iter().copied()) {
        return Vec::new();
    }
    let missing = wanted
        .iter()
        .zip(&lines)
        .filter(|(_, line)| !found.contains(line))
        .map(|(rule, _)| format!("missing: {rule}"));
    let unexpected = found
        .iter()
        .filter(|line| !lines.contains(line))
        .map(|line| format!("unexpected: {}", line.0.join(" ")));
    let differences: Vec<_> = missing.chain(unexpected).collect();
    match differences.is_empty() {
        true => vec![format!(
            "the rules of {} are in another order or doubled",
            chain.name()
        )],
        false => differences,
    }
}

impl Line {
    fn of(rule: &Rule) -> Self {
        Self::parse(&rule.to_string())
    }

    fn parse(line: &str) -> Self {
        let mut words = Vec::new();
        let mut rest = split_words(line).into_iter();
        while let Some(word) = rest.next() {
            if word != "-s" {
                words.push(word);
                continue;
            }
            let Some(address) = rest.next() else { continue };
            match network(&address) {
                // iptables-save leaves out a match that always holds.
                Some(net) if net.prefix_len() == 0 => {}
                Some(net) => words.extend([word, net.to_string()]),
                None => words.extend([word, address]),
            }
        }
        Self(words)
    }

    fn is_in(&self, chain: Chain) -> bool {
        self.0.get(1).is_some_and(|name| name == chain.name())
    }

    fn leads_into_ours(&self) -> bool {
        let ours = |word: &String| Chain::OURS.iter().any(|chain| chain.name() == word);
        let target = self
            .0
            .windows(2)
            .any(|pair| matches!(&*pair[0], "-j" | "-g") && ours(&pair[1]));
        target && !Chain::OURS.iter().any(|chain| self.is_in(*chain))
    }
}

/// libc and Rust do not write every IPv6 address alike; parsed, they are equal.
fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Words of a saved rule: double quotes group, a backslash escapes.
fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut begun) = (false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            '\\' => word.extend(chars.next()),
            c if c.is_whitespace() && !quoted => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => word.push(c),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Redirection, Subnet};
    use crate::rules::plan;
    use crate::tools::Family;
    use proptest::prelude::*;

    #[test]
    fn the_plans_own_text_has_no_differences() {
        let plan = example();
        assert_eq!(
            Saved::parse(&plan.restore_input(&plan.jumps)).differences(&plan),
            [""; 0]
        );
    }

    #[test]
    fn quotes_and_the_form_of_addresses_do_not_matter() {
        let plan = example();
        let text = plan
            .restore_input(&plan.jumps)
            .replace("-s ::102:304/128", "-s ::1.2.3.4/128")
            .replace(" -s ::/0", "")
            .replace("\"proxy-init/ignore-loopback\"", "proxy-init/ignore-loopback");
        assert_ne!(text, plan.restore_input(&plan.jumps));
        assert_eq!(Saved::parse(&text).differences(&plan), [""; 0]);
    }

    #[test]
    fn a_missing_rule_is_named() {
        let plan = example();
        for rule in plan.rules.iter().chain(&plan.jumps) {
            let text = plan.restore_input(&plan.jumps).replace(&format!("{rule}\n"), "");
            assert_eq!(
                Saved::parse(&text).differences(&plan),
                [format!("missing: {rule}")]
            );
        }
    }

    #[test]
    fn a_foreign_rule_and_a_changed_order_in_our_chains_are_told() {
        let plan = example();
        let text = plan.restore_input(&plan.jumps);
        let foreign = text.replace("COMMIT", "-A PROXY_INIT_OUTPUT -j ACCEPT\nCOMMIT");
        assert_eq!(
            Saved::parse(&foreign).differences(&plan),
            ["unexpected: -A PROXY_INIT_OUTPUT -j ACCEPT"]
        );
        let (first, second) = (plan.rules[0].to_string(), plan.rules[1].to_string());
        let swapped = text
            .replace(&first, "§")
            .replace(&second, &first)
            .replace('§', &second);
        assert_eq!(
            Saved::parse(&swapped).differences(&plan),
            ["the rules of PROXY_INIT_REDIRECT are in another order or doubled"]
        );
    }

    #[test]
    fn a_jump_under_a_condition_is_not_ours() {
        let plan = example();
        let saved = Saved::parse("-A PREROUTING -i eth1 -j PROXY_INIT_REDIRECT\n");
        assert_eq!(saved.missing_jumps(&plan), plan.jumps);
    }

    #[test]
    fn removal_takes_our_chains_and_what_leads_there_and_nothing_else() {
        let saved = Saved::parse(
            ":OUTPUT ACCEPT [0:0]\n:PROXY_INIT_OUTPUT - [0:0]\n:PROXY_INIT_OUTPUT_2 - [0:0]\n\
             -A OUTPUT -m comment --comment \"proxy-init/install-proxy-init-output\" -j PROXY_INIT_OUTPUT\n\
             -A OUTPUT -m comment --comment \"-j PROXY_INIT_OUTPUT\" -j PROXY_INIT_OUTPUT_2\n\
             -A OUTPUT -g PROXY_INIT_OUTPUT\n\
             -A PROXY_INIT_OUTPUT -o lo -j RETURN\nCOMMIT\n",
        );
        let expected = "*nat\n\
             -D OUTPUT -m comment --comment \"proxy-init/install-proxy-init-output\" -j PROXY_INIT_OUTPUT\n\
             -D OUTPUT -g PROXY_INIT_OUTPUT\n\
             -F PROXY_INIT_OUTPUT\n-X PROXY_INIT_OUTPUT\nCOMMIT\n";
        assert_eq!(saved.removal().as_deref(), Some(expected));
        assert_eq!(Saved::parse(":OUTPUT ACCEPT [0:0]\n").removal(), None);
    }

    proptest! {
        #[test]
        fn any_text_can_be_compared_and_is_not_mistaken_for_the_plan(text in "(-A PROXY_INIT_OUTPUT|-s|\\PC|\n)*") {
            let plan = example();
            prop_assert!(Saved::parse(&text).differences(&plan).len() >= plan.jumps.len());
        }

        #[test]
        fn quoted_words_come_back_as_they_were(words in prop::collection::vec("[a-z\"\\\\ /]*", 0..5)) {
            let quote = |word: &String| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
            let line = words.iter().map(quote).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(split_words(&line), words);
        }
    }

    fn example() -> Plan {
        let skip_subnets = ["fd00::/8", "::1.2.3.4/128", "::/0"]
            .map(|text| Subnet::parse(text).unwrap())
            .to_vec();
        let redirection = Redirection {
            incoming_port: 4143,
            outgoing_port: 4140,
            proxy_uid: Some(2102),
            skip_subnets,
            ..Default::default()
        };
        plan(&redirection, Family::V6)
    }
}
