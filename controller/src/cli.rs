//! The command line of `outrigger`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use outrigger_policy::authz::ClientTls;
use outrigger_policy::name::{DnsName, Identity};

use crate::compile::client::Client;
use crate::compile::settings::Settings;
use crate::explain::request::Header;
use crate::identity::{ServiceAccount, Trust};
use crate::resources::default_policy::DefaultPolicy;
use crate::resources::ports::PortSet;

/// The control plane of the Outrigger mesh, and the tools people type.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `outrigger` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the identity, destination and policy APIs from a directory of Kubernetes manifests.
    Controller(Box<Controller>),
    /// Say what proxies would be told by a directory of manifests, which rule a request would take, and why.
    Explain(Box<Explain>),
    /// Print a service-account token, with which a proxy asks for its certificate.
    Token(Token),
    /// Print the mesh's root certificate (PEM), as proxies want it in LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS.
    TrustAnchors(TrustAnchors),
}

/// The options of `outrigger controller`.
#[derive(Debug, Args)]
pub struct Controller {
    /// Directory of manifests (*.yaml, *.yml, *.json, read recursively and watched), or one file of them.
    #[arg(long, value_name = "DIR|FILE")]
    pub manifests: PathBuf,

    /// Where the CA and the token key are; made at first use.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,

    /// What is the same for the whole cluster.
    #[command(flatten)]
    pub cluster: ClusterOptions,

    /// How long the certificates of proxies are valid.
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = duration)]
    pub identity_issuance_lifetime: Duration,

    /// Where the identity API listens. A loopback address means plaintext, any other TLS.
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "IP:PORT")]
    pub identity_addr: SocketAddr,

    /// Where the destination API listens. A loopback address means plaintext, any other mutual TLS.
    #[arg(long, default_value = "0.0.0.0:8086", value_name = "IP:PORT")]
    pub destination_addr: SocketAddr,

    /// Where the policy API listens. A loopback address means plaintext, any other mutual TLS.
    #[arg(long, default_value = "0.0.0.0:8090", value_name = "IP:PORT")]
    pub policy_addr: SocketAddr,

    /// Where /live, /ready and /metrics are.
    #[arg(long, default_value = "0.0.0.0:9990", value_name = "IP:PORT")]
    pub admin_addr: SocketAddr,

    /// What is logged: a level, or a filter like info,outrigger_controller=debug.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log_level: String,

    /// How it is logged.
    #[arg(long, default_value = "plain", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// The options about the cluster, which `controller` and `explain` have.
#[derive(Debug, Args)]
pub struct ClusterOptions {
    /// The namespace that stands for this control plane in identities and in linkerd.io/control-plane-ns.
    #[arg(long, default_value = "linkerd", value_name = "NAME")]
    pub controller_namespace: String,

    /// The DNS domain of the cluster's services.
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub cluster_domain: String,

    /// What every identity ends in.
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub identity_trust_domain: String,

    /// The networks of pods and services; destinations outside are forwarded as they are.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "CIDR,…",
        default_value = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8"
    )]
    pub cluster_networks: Vec<IpNet>,

    /// Who may reach ports for which nothing else is said.
    #[arg(long, default_value = "all-unauthenticated", value_name = "POLICY")]
    pub default_policy: DefaultPolicy,

    /// Ports on which the server speaks first, where no annotation says otherwise.
    #[arg(
        long,
        value_name = "PORT|FROM-TO,…",
        default_value = "25,587,3306,4444,5432,6379,9300,11211"
    )]
    pub default_opaque_ports: PortSet,

    /// From where health probes come.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "CIDR,…",
        default_value = "0.0.0.0/0,::/0"
    )]
    pub probe_networks: Vec<IpNet>,

    /// Let requests to routes set their own timeouts and retries (headers l5d-timeout, l5d-retry-http, …).
    #[arg(long)]
    pub allow_l5d_request_headers: bool,
}

/// The options of `outrigger explain`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("question").required(true).args(["from", "inbound"]))]
pub struct Explain {
    /// Directory of manifests, or one file of them.
    #[arg(long, value_name = "DIR|FILE")]
    pub manifests: PathBuf,

    /// What is the same for the whole cluster: as for the controller.
    #[command(flatten)]
    pub cluster: ClusterOptions,

    /// The pod that sends.
    #[arg(long, value_name = "NAMESPACE/POD", requires = "to", value_parser = workload)]
    pub from: Option<Client>,

    /// Where it sends: a Service's name or an address, and a port.
    #[arg(long, value_name = "HOST:PORT", requires = "from")]
    pub to: Option<String>,

    /// The pod and port that receive.
    #[arg(long, value_name = "NAMESPACE/POD:PORT", value_parser = workload_port)]
    pub inbound: Option<(Client, u16)>,

    /// Who sends: an identity, or `namespace/service-account`; nobody where none is given.
    #[arg(long = "as", value_name = "IDENTITY", requires = "inbound")]
    pub identity: Option<String>,

    /// Where the sender is.
    #[arg(long, value_name = "IP", default_value = "10.0.0.1")]
    pub from_ip: IpAddr,

    /// The request's path, with its query.
    #[arg(long, default_value = "/")]
    pub path: String,

    /// The request's method.
    #[arg(long, default_value = "GET")]
    pub method: http::Method,

    /// A header of the request; may be given several times.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<Header>,
}

/// The options of `outrigger token`.
#[derive(Debug, Args)]
pub struct Token {
    /// The state directory of the controller that will check the token; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,

    /// The namespace of the workload.
    #[arg(long, value_name = "NAME")]
    pub namespace: String,

    /// The service account of the workload.
    #[arg(long, value_name = "NAME")]
    pub service_account: String,

    /// How long the token is valid.
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = duration)]
    pub lifetime: Duration,
}

/// The options of `outrigger trust-anchors`.
#[derive(Debug, Args)]
pub struct TrustAnchors {
    /// The state directory of the controller; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
}

/// A form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// One JSON object per line.
    Json,
}

impl Cli {
    /// Reads a command line. What parses one by one, but can not be used, is refused here too.
    pub fn read<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let cli = Self::try_parse_from(arguments)?;
        let refused = match &cli.command {
            Command::Controller(options) => options.check(),
            Command::Explain(options) => options.check(),
            Command::Token(options) => options.account().map(drop),
            Command::TrustAnchors(_) => Ok(()),
        };
        refused.map_err(invalid)?;
        Ok(cli)
    }
}

impl Controller {
    /// The names that identities end in.
    pub fn trust(&self) -> Result<Trust, String> {
        Trust::new(
            &self.cluster.controller_namespace,
            &self.cluster.identity_trust_domain,
        )
        .map_err(|error| format!("--controller-namespace, --identity-trust-domain: {error}"))
    }

    /// What the compiler needs to know of the cluster.
    pub fn settings(&self) -> Result<Settings, String> {
        self.cluster.settings()
    }

    fn check(&self) -> Result<(), String> {
        self.trust()?;
        self.settings()?;
        self.log_filter()?;
        exists(&self.manifests)
    }

    /// The filter of the log.
    pub fn log_filter(&self) -> Result<tracing_subscriber::EnvFilter, String> {
        tracing_subscriber::EnvFilter::try_new(&self.log_level)
            .map_err(|error| format!("--log-level: {error}; give off, error, warn, info, debug or trace"))
    }
}

impl ClusterOptions {
    /// What the compiler needs to know of the cluster.
    pub fn settings(&self) -> Result<Settings, String> {
        let cluster_domain = DnsName::parse(&self.cluster_domain)
            .map_err(|error| format!("--cluster-domain {}: {error}", self.cluster_domain))?;
        Ok(Settings {
            namespace: self.controller_namespace.as_str().into(),
            cluster_domain: cluster_domain.as_str().into(),
            trust_domain: self.identity_trust_domain.as_str().into(),
            cluster_networks: self.cluster_networks.clone(),
            default_policy: self.default_policy,
            default_opaque_ports: self.default_opaque_ports.clone(),
            probe_networks: self.probe_networks.clone(),
            allow_l5d_request_headers: self.allow_l5d_request_headers,
        })
    }
}

impl Explain {
    /// How the sender comes.
    pub fn tls(&self) -> Result<ClientTls, String> {
        let Some(text) = &self.identity else {
            return Ok(ClientTls::None);
        };
        let identity = match text.split_once('/') {
            Some((namespace, account)) if !text.contains("://") => {
                let settings = self.cluster.settings()?;
                settings.identity(namespace, account).map(Identity::Dns)
            }
            _ => Identity::parse(text),
        };
        let identity = identity.map_err(|error| format!("--as {text}: {error}; give an identity"))?;
        Ok(ClientTls::Terminated(Some(identity)))
    }

    fn check(&self) -> Result<(), String> {
        self.cluster.settings()?;
        self.tls()?;
        exists(&self.manifests)
    }
}

fn exists(manifests: &Path) -> Result<(), String> {
    match std::fs::metadata(manifests) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "--manifests {}: {error}; name an existing directory or file",
            manifests.display()
        )),
    }
}

/// `<namespace>/<pod>`.
fn workload(text: &str) -> Result<Client, String> {
    let names = text
        .split_once('/')
        .filter(|(namespace, pod)| !namespace.is_empty() && !pod.is_empty());
    let client = names.and_then(|(namespace, pod)| Client::of_workload(&format!("{namespace}:{pod}")));
    client.ok_or_else(|| format!("{text:?} is no pod: write <namespace>/<pod>"))
}

/// `<namespace>/<pod>:<port>`.
fn workload_port(text: &str) -> Result<(Client, u16), String> {
    let (pod, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = port.parse().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!("{text:?} has no port: write <namespace>/<pod>:<port>"))?;
    Ok((workload(pod)?, port))
}

impl Token {
    /// Whose token it will be.
    pub fn account(&self) -> Result<ServiceAccount, String> {
        ServiceAccount::new(&self.namespace, &self.service_account)
            .map_err(|error| format!("--namespace, --service-account: {error}"))
    }
}

fn invalid(text: String) -> clap::Error {
    clap::Error::raw(
        clap::error::ErrorKind::ValueValidation,
        format!("{text}\n\nFor more information, try '--help'.\n"),
    )
}

/// Reads a duration as Go writes it: numbers with the units h, m, s, ms, from a second to a hundred years.
fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("{text:?} is not a duration from 1s to 876000h: write 24h, 90m or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        let (number, unit) = rest[..digits + letters].split_at(digits);
        let number: u32 = number.parse().map_err(|_| refused())?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(refused()),
        };
        total = unit
            .checked_mul(number)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(refused)?;
        rest = &rest[digits + letters..];
    }
    let allowed = Duration::from_secs(1)..=Duration::from_secs(876_000 * 3600);
    if allowed.contains(&total) {
        Ok(total)
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(more: &[&str]) -> Result<Controller, String> {
        let base = ["outrigger", "controller", "--manifests", ".", "--state-dir", "s"];
        let cli = Cli::read(base.iter().chain(more)).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Controller(options) => Ok(*options),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn durations_are_written_as_in_go() {
        assert_eq!(duration("24h0m0s"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        for bad in [
            "",
            "24",
            "h",
            "1x",
            "1s5",
            "-1s",
            "999ms",
            "0s",
            "99999999999h",
            "4000000000h",
            "1 h",
            "ß",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_duration_panic(text in "[0-9hmsß ]{0,24}") {
            if let Ok(read) = duration(&text) {
                proptest::prop_assert!(read >= Duration::from_secs(1));
            }
        }
    }

    #[test]
    fn the_defaults_are_those_of_linkerd() {
        let options = controller(&[]).unwrap();
        assert_eq!(options.identity_addr.port(), 8080);
        assert_eq!(options.destination_addr.port(), 8086);
        assert_eq!(options.policy_addr.port(), 8090);
        assert_eq!(options.identity_issuance_lifetime, Duration::from_secs(86_400));
        assert_eq!(options.cluster.cluster_networks.len(), 5);
    }

    #[test]
    fn manifests_that_are_not_there_are_refused() {
        let line = ["outrigger", "controller", "--manifests=/no/such", "--state-dir=s"];
        let error = Cli::read(line).unwrap_err().to_string();
        assert!(error.contains("--manifests /no/such"), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (flag, value) in [
            ("--controller-namespace", "Not A Label"),
            ("--identity-trust-domain", "a..b"),
            ("--identity-addr", "8080"),
            ("--cluster-domain", "a..b"),
            ("--cluster-networks", "10.0.0.0/33"),
            ("--default-policy", "some"),
            ("--default-opaque-ports", "0"),
            ("--identity-issuance-lifetime", "1"),
            ("--log-level", "a=b=c"),
            ("--log-format", "xml"),
        ] {
            let error = controller(&[flag, value]).unwrap_err();
            assert!(error.contains(flag), "{flag}: {error}");
        }
    }
}
