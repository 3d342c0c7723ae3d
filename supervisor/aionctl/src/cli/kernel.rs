//! Commands on the kernel API: tenants, tools, models, secrets, decisions.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::run::span;

/// As `span`; a secret may also end at once.
fn span_or_zero(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { span(text) }
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Read agent.capabilities.yaml anew and hold running agents to it; lists those that have more than it leaves them
    Reload {
        /// Tell what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Add a tenant
    Add {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The file with its secret, 16 to 4096 bytes ('-': from stdin); a newline at its end is not part of it
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
        #[command(flatten)]
        settings: TenantSettings,
    },
    /// Change a tenant's settings; what is not given is taken back
    Set {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        settings: TenantSettings,
    },
    /// Give a tenant a new secret; those before stay good for a while
    Rotate {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The file with its new secret ('-': from stdin)
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
        /// How long the secrets before stay good, as 10m, or 0; 1h when absent
        #[arg(long, value_name = "TIME", value_parser = span_or_zero)]
        overlap: Option<Duration>,
    },
    /// Forget a tenant, its secrets and its own memories; its agents stay
    Revoke {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// List tenants
    Ls,
    /// Print a token that speaks for one agent, for clients that cannot sign (OpenAI's, MCP's)
    Token {
        /// The tenant
        #[arg(value_name = "TENANT")]
        name: String,
        /// The agent
        #[arg(value_name = "AGENT")]
        agent: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TenantSettings {
    /// Requests must carry a time and a nonce
    #[arg(long)]
    pub(crate) require_timestamp: bool,
    /// A capability that its agents may have; with one, no others. Can be repeated
    #[arg(long = "allow", value_name = "CAPABILITY")]
    pub(crate) allow: Vec<String>,
    /// A capability that its agents never have. Can be repeated
    #[arg(long = "deny", value_name = "CAPABILITY")]
    pub(crate) deny: Vec<String>,
    /// Requests in a second
    #[arg(long, value_name = "N")]
    pub(crate) rate: Option<u32>,
    /// US dollars in an hour
    #[arg(long, value_name = "USD", allow_negative_numbers = true)]
    pub(crate) usd_per_hour: Option<f64>,
    /// Tokens in an hour
    #[arg(long, value_name = "N")]
    pub(crate) tokens_per_hour: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ToolCommand {
    /// Install a tool: for all tenants, or with --tenant for one
    Install {
        /// Its manifest, with its files beside it
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List the tools that the tenant sees
    Ls,
    /// Remove tools
    Rm {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Invoke a tool and print its result
    Invoke(ToolInvoke),
}

#[derive(Debug, Args)]
pub(crate) struct ToolInvoke {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Arguments: KEY=TEXT, or KEY:=JSON
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) arguments: Vec<String>,
    /// All arguments as a JSON object
    #[arg(long, value_name = "JSON", conflicts_with = "arguments")]
    pub(crate) params: Option<String>,
    /// As this agent, with its capabilities; without it as an operator
    #[arg(long, value_name = "AGENT")]
    pub(crate) agent: Option<String>,
    /// How long it may take, as 5s
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Add a model behind an API that is compatible with OpenAI's
    Add(Box<ModelAdd>),
    /// List models
    Ls,
    /// Remove models
    Rm {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ModelAdd {
    /// Its name, as agents ask for it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The API's base, as http://127.0.0.1:8080/v1
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,
    /// The file with the key ('-': from stdin); it is sealed and no agent sees it
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// It runs on this host: data of agents that may not use the cloud may go there
    #[arg(long)]
    pub(crate) local: bool,
    /// The name that the backend knows, when it is another
    #[arg(long, value_name = "NAME")]
    pub(crate) upstream: Option<String>,
    /// Other names of it; `*` takes calls of all names that nothing else has. Can be repeated
    #[arg(long = "alias", value_name = "NAME")]
    pub(crate) aliases: Vec<String>,
    /// Tokens of its context
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub(crate) context: u32,
    /// Tokens of one answer at most
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) max_output: u32,
    /// The parameter that bounds its answers: max_tokens, or max_completion_tokens for models that think before they answer
    #[arg(long, value_name = "PARAMETER", default_value = "max_tokens", value_parser = ["max_tokens", "max_completion_tokens"])]
    pub(crate) output_limit: String,
    /// US dollars for a million tokens that it reads
    #[arg(long, value_name = "USD", default_value_t = 0.0)]
    pub(crate) usd_in: f64,
    /// US dollars for a million tokens that it writes
    #[arg(long, value_name = "USD", default_value_t = 0.0)]
    pub(crate) usd_out: f64,
    /// How long a call may take, as 2m
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) timeout: Option<Duration>,
    /// How often a call is repeated
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) retries: u32,
    /// How long answers are kept and given again, as 10m
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub(crate) cache: Option<Duration>,
    /// What it can be asked for: generate, embed. Can be repeated; generate when absent
    #[arg(long = "kind", value_name = "KIND")]
    pub(crate) kinds: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Store a secret of the tenant, in the place of one of the same name
    Add(SecretAdd),
    /// List secrets; nothing shows their values
    Ls,
    /// Forget secrets
    Rm {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SecretAdd {
    /// Its name, as agents ask for it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The file with its value, 8 to 4096 bytes ('-': from stdin); a newline at its end is not part of it
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A host that gets it, over https; port 443 when absent. Over http only on this host's loopback. Can be repeated
    #[arg(long = "host", value_name = "HOST[:PORT]", required = true)]
    pub(crate) hosts: Vec<String>,
    /// The header that carries it; Authorization when absent
    #[arg(long, value_name = "HEADER")]
    pub(crate) header: Option<String>,
    /// What stands before it in the header; "Bearer " for Authorization and nothing for others when absent
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Their ids, as `aionctl approvals` shows them
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    /// Why; the agent is told
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) note: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Write the seccomp profile and the manifest that an agent's runs so far needed, to review
    ///
    /// They never give more than the agent had. The runs must have been counted (`--audit count`).
    Learn(LearnArgs),
    /// Show what a learned profile and manifest would deny of the agent's runs on record
    ///
    /// Exits with 1 when there is something, so that a profile is widened by review and not by breakage.
    Diff(ReviewArgs),
    /// Put a learned profile and manifest into effect, or count runs to compare them with
    Apply(ProfileApplyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReviewArgs {
    /// The agent, running or ended
    #[arg(value_name = "AGENT")]
    pub(crate) agent: String,
    /// The folder of NAME.json, the profile, and AGENT.yml, the manifest
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The profile's name; AGENT-learned when not given
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("how").required(true).args(["audit", "enforce"]))]
pub(crate) struct ProfileApplyArgs {
    #[command(flatten)]
    pub(crate) of: ReviewArgs,
    /// Deny nothing more: run the agent under what it has, with its system calls counted; `profile diff` then tells what the files
    /// would have denied
    #[arg(long)]
    pub(crate) audit: bool,
    /// Install the profile and run the agent under both files. Refused when they would deny what is on record
    #[arg(long)]
    pub(crate) enforce: bool,
    /// Enforce also what would deny something that is on record
    #[arg(long, requires = "enforce")]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LearnArgs {
    #[command(flatten)]
    pub(crate) of: ReviewArgs,
    /// Write over files that are there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A system call's audit id, as sc-…, or the number of a record of the audit log
    #[arg(value_name = "AUDIT_ID", required_unless_present = "agent")]
    pub(crate) audit_id: Option<String>,
    /// The newest denial of this agent instead
    #[arg(long, value_name = "AGENT", conflicts_with = "audit_id")]
    pub(crate) agent: Option<String>,
}
