//! Process logs: the filter, in which `linkerd` means our crates, and the two line formats.

use std::fmt;
use std::time::Instant;

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Log, LogFormat};

/// The prefix of all targets of this proxy's own crates.
const OWN_CRATES: &str = "outrigger";
/// What charts and people write for it, since that is what Linkerd's proxy calls itself.
const ALIASES: &[&str] = &["linkerd", "linkerd2_proxy"];

/// Changes the filter of a running proxy.
#[derive(Clone, Debug)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

/// The filter can't be read or set.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// Not a list of directives.
    #[error("not a log filter: {0}; write directives such as `warn,linkerd=debug`")]
    Parse(#[from] tracing_subscriber::filter::ParseError),
    /// The subscriber is gone.
    #[error("logging has ended")]
    Gone(#[from] reload::Error),
}

/// Starts logging to standard output, once per process. `None`: the filter is `off`, and nothing is ever logged.
///
/// Directives that can't be read are skipped, each with a line on standard error.
pub fn start(log: &Log) -> Result<Option<Level>, TryInitError> {
    if log.filter.trim().eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .parse_lossy(own_targets(&log.filter));
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines(log.format, Uptime::start(), std::io::stdout))
        .try_init()?;
    Ok(Some(Level(handle)))
}

impl Level {
    /// Replaces the filter.
    pub fn set(&self, directives: &str) -> Result<(), LevelError> {
        let filter = EnvFilter::builder()
            .with_default_directive(LevelFilter::WARN.into())
            .parse(own_targets(directives))?;
        Ok(self.0.reload(filter)?)
    }

    /// The filter of no log at all, and what keeps it.
    #[cfg(test)]
    pub(crate) fn of_no_log(directives: &str) -> (reload::Layer<EnvFilter, Registry>, Self) {
        let (layer, handle) = reload::Layer::new(EnvFilter::new(own_targets(directives)));
        (layer, Self(handle))
    }

    /// The filter now, as text.
    pub fn current(&self) -> Result<String, LevelError> {
        Ok(self.0.with_current(ToString::to_string)?)
    }
}

/// The first line of the log: `{profile} {version} ({sha}) by {vendor} on {date}`.
pub fn banner(build: &crate::telemetry::process::Build) {
    let crate::telemetry::process::Build {
        profile,
        version,
        git_sha,
        vendor,
        date,
    } = build;
    tracing::info!("{profile} {version} ({git_sha}) by {vendor} on {date}");
}

/// Formats lines: plain ones with the uptime, or JSON objects with the time of day.
fn lines<S, W>(format: LogFormat, uptime: Uptime, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_thread_ids(true)
        .with_ansi(false);
    match format {
        LogFormat::Plain => layer.with_timer(uptime).map_event_format(OneLine::plain).boxed(),
        LogFormat::Json => layer
            .json()
            .with_current_span(false)
            .with_span_list(true)
            .map_event_format(OneLine::json)
            .boxed(),
    }
}

/// Keeps an event on its line, whatever a peer has put into a message or a field.
struct OneLine<F> {
    format: F,
    escape: fn(char, &mut Writer<'_>) -> fmt::Result,
}

impl<F> OneLine<F> {
    fn plain(format: F) -> Self {
        let escape = |c: char, out: &mut Writer<'_>| write!(out, "{}", c.escape_default());
        Self { format, escape }
    }

    /// Line ends are escaped already (RFC 8259 §7), the rest of what terminals act on is not.
    fn json(format: F) -> Self {
        let escape = |c: char, out: &mut Writer<'_>| write!(out, "\\u{:04x}", u32::from(c));
        Self { format, escape }
    }
}

impl<S, N, F> FormatEvent<S, N> for OneLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.format.format_event(context, Writer::new(&mut text), event)?;
        for c in text.strip_suffix('\n').unwrap_or(&text).chars() {
            if breaks_lines(c) {
                (self.escape)(c, &mut out)?;
            } else {
                out.write_char(c)?;
            }
        }
        out.write_char('\n')
    }
}

/// Whether a character could end a line, or change how a terminal shows what stands around it.
fn breaks_lines(c: char) -> bool {
    let separates = matches!(c, '\u{2028}' | '\u{2029}');
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || separates || turns
}

/// Replaces the alias as a directive's target; leaves everything else, spans and fields too, as it is.
fn own_targets(directives: &str) -> String {
    let mut depth = 0usize;
    let split = |c: char| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    directives
        .split(split)
        .map(own_target)
        .collect::<Vec<_>>()
        .join(",")
}

fn own_target(directive: &str) -> String {
    let directive = directive.trim();
    let end = directive
        .find("::")
        .into_iter()
        .chain(directive.find(['[', '=']))
        .min()
        .unwrap_or(directive.len());
    let (target, rest) = directive.split_at(end);
    let target = if ALIASES.contains(&target) {
        OWN_CRATES
    } else {
        target
    };
    format!("{target}{rest}")
}

/// Prints the time since the process started logging: `[     1.000042s]`.
#[derive(Clone, Copy, Debug)]
struct Uptime(Instant);

impl Uptime {
    fn start() -> Self {
        Self(Instant::now())
    }
}

impl FormatTime for Uptime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let up = self.0.elapsed();
        write!(w, "[{:>6}.{:06}s]", up.as_secs(), up.subsec_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `log` writes under a filter.
    fn logged(format: LogFormat, directives: &str, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let filter: EnvFilter = own_targets(directives).parse().unwrap();
        let lines = lines(format, Uptime::start(), move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(filter).with(lines), log);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_alias_means_our_crates() {
        assert_eq!(own_targets("warn,linkerd=info"), "warn,outrigger=info");
        assert_eq!(own_targets("linkerd"), "outrigger");
        assert_eq!(own_targets("linkerd[{a=1,b}]=trace"), "outrigger[{a=1,b}]=trace");
        assert_eq!(own_targets("linkerdish=info"), "linkerdish=info");
    }

    #[test]
    fn the_charts_filter_parses() {
        let filter = own_targets("warn,linkerd=info,hickory=error,[{headers}]=off,[{request}]=off");
        assert!(EnvFilter::builder().parse(&filter).is_ok(), "{filter}");
    }

    #[test]
    fn a_plain_line_has_uptime_level_thread_spans_and_target() {
        let line = logged(LogFormat::Plain, "linkerd=info", || {
            let _in = tracing::info_span!("inbound").entered();
            tracing::info!(port = 80, "Accepted");
        });
        let (uptime, rest) = line.split_once("]  INFO ThreadId(").unwrap();
        assert!(uptime.starts_with("[     ") && uptime.ends_with('s'), "{line}");
        assert!(
            rest.ends_with("inbound: outrigger_proxy::telemetry::log::tests: Accepted port=80\n"),
            "{line}"
        );
    }

    #[test]
    fn what_a_peer_sent_can_not_forge_a_line_nor_steer_a_terminal() {
        for format in [LogFormat::Plain, LogFormat::Json] {
            let hostile = "a\n[     1.000000s] ERROR\r\u{1b}[2J\u{9b}2J\u{2028}\u{202e}";
            let line = logged(format, "info", || {
                let _in = tracing::info_span!("accept", peer = %hostile).entered();
                tracing::info!(field = %hostile, "{hostile}");
            });
            let text = line.strip_suffix('\n').unwrap();
            assert!(!text.contains(char::is_control), "{text:?}");
            assert!(
                format == LogFormat::Json || !text.contains(breaks_lines),
                "{text:?}"
            );
            assert!(text.contains("\\n[     1.000000s]"), "{text}");
        }
    }

    #[test]
    fn a_json_line_holds_the_message_among_its_fields() {
        let line = logged(LogFormat::Json, "info", || {
            let _in = tracing::info_span!("inbound").entered();
            tracing::info!(port = 80, "Accepted");
        });
        for part in [
            r#""level":"INFO""#,
            r#""fields":{"message":"Accepted","port":80}"#,
            r#""threadId":"#,
            r#""spans":[{"name":"inbound"}]"#,
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn what_the_filter_leaves_out_is_not_written() {
        let line = logged(LogFormat::Plain, "warn,linkerd=error", || {
            tracing::warn!("hidden")
        });
        assert_eq!(line, "");
    }
}
