//! What can be written on the command line.

use std::{net::SocketAddr, path::PathBuf};

use antiphon_protocol::{LogName, TenantId, UserId};
use clap::{Args, Parser, Subcommand};

use crate::{chaos::Plan, date};

/// Message broker for conversations. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "antiphon", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker (the default).
    Serve(Box<Serve>),
    /// Read a configuration and everything it names, and say whether it is usable.
    CheckConfig(Box<Serve>),
    /// Make a development token with the data directory's key.
    Token(Token),
    /// Send one message and wait until it is stored.
    Pub(Pub),
    /// Print the events of a log as they come. Survives restarts of the broker.
    Sub(Sub),
    /// Print past events of a log.
    History(History),
    /// Bring conversations of another system in, with their senders, times and reactions.
    Import(Import),
    /// Say why a user got an event, or not, as far as the running broker knows.
    Explain(Explain),
    /// Copy the store of a running broker, consistently.
    Backup(Backup),
    /// Make a data directory from a backup.
    Restore(Restore),
    /// Make, show or check the tables of a store on a cluster.
    Schema(Schema),
    /// Move everything to the other engine: from the data directory to the cluster, or back. Clients notice nothing.
    Copy(Copy),
    /// Check every byte of a data directory that no broker uses.
    Verify(Verify),
}

/// How to run the broker. Flags beat `ANTIPHON_...` variables, which beat the file.
#[derive(Debug, Args, Default)]
pub(crate) struct Serve {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "ANTIPHON_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory [default: ./antiphon-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// UDP address for clients [default: 127.0.0.1:7000].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// TCP address of the admin listener [default: 127.0.0.1:7001].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<String>,
    /// UDP address for gateways in processes of their own [default: 127.0.0.1:7002].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) trunk: Option<String>,
    /// TCP address of the gateway for browsers and back ends [default: 127.0.0.1:7080].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Option<String>,
    /// Number of shards, one thread each [default: one per core].
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<i64>,
    /// Accept development tokens; loopback only.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) development: Option<bool>,
    /// Certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// text or json [default: text in a terminal, else json].
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// What is logged, such as info or warn,antiphon_server=debug.
    #[arg(long, value_name = "FILTER")]
    pub(crate) log_filter: Option<String>,
    /// Harm the traffic of clients on purpose, in development mode only. Parts with commas between them: lag=300ms makes
    /// each direction slower by about that; cut=5s lets nothing pass for so long, about every 30 s (on average six times
    /// its length after the last one), for all clients at once; reorder lets some datagrams overtake others (UDP only:
    /// TCP keeps its order); seed=N makes the same draws again.
    #[arg(long, value_name = "PARTS", verbatim_doc_comment)]
    pub(crate) chaos: Option<Plan>,
}

/// Which store: the one of the configuration file and the `ANTIPHON_STORE_...` variables.
#[derive(Debug, Args)]
pub(crate) struct Schema {
    #[command(subcommand)]
    pub(crate) action: SchemaAction,
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "ANTIPHON_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,
}

/// Which stores: the data directory and, in the configuration, the cluster. No broker may use either.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// What to read.
    #[arg(long, value_name = "ENGINE")]
    pub(crate) from: Engine,
    /// What to write: empty, or an unfinished copy.
    #[arg(long, value_name = "ENGINE")]
    pub(crate) to: Engine,
    /// Data directory [default: that of the configuration].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Configuration file (TOML). Its `[store]` names the cluster.
    #[arg(long, value_name = "FILE", env = "ANTIPHON_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

/// What keeps logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Engine {
    /// The data directory.
    Embedded,
    /// The cluster.
    #[value(alias = "cassandra")]
    Scylla,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum SchemaAction {
    /// Bring keyspaces and tables to this program's version. Safe to repeat, and by several at once.
    Apply,
    /// Print the statements that `apply` would run on an empty cluster, and which version is there.
    Show,
    /// Say whether a broker could start: version, servers, replication, clocks.
    Check,
}

/// Where the broker's data is.
#[derive(Debug, Args)]
pub(crate) struct DataDir {
    /// Data directory of the broker on this machine.
    #[arg(long, value_name = "DIR", env = "ANTIPHON_DATA_DIR", default_value = "antiphon-data")]
    pub(crate) data: PathBuf,
}

/// Which broker, as whom. In development everything comes from the data directory.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// The broker's address [default: the one running on the data directory].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<SocketAddr>,
    /// SHA-256 of its certificate [default: the data directory's].
    #[arg(long, value_name = "HEX", conflicts_with = "ca")]
    pub(crate) fingerprint: Option<String>,
    /// Roots that its certificate must lead to (PEM), instead of a fingerprint.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Name in its certificate.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub(crate) server_name: String,
    /// Access token [default: a development token for --user].
    #[arg(long, value_name = "JWT", env = "ANTIPHON_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Who one is, with a development token.
    #[arg(long, value_name = "USER", default_value = "me")]
    pub(crate) user: UserId,
    /// Which device one is on; a second connection of the same device replaces the first.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// The user, or the service's name.
    #[arg(long)]
    pub(crate) user: UserId,
    /// Make a token for a back end.
    #[arg(long)]
    pub(crate) service: bool,
    /// Right on a log or a prefix of logs, such as c:support-*=read,send [default: c:lobby=read,send,signal].
    #[arg(long = "grant", value_name = "LOG=ABILITIES")]
    pub(crate) grants: Vec<String>,
    /// act_as, admin:read or admin:write.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// Lifetime in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 24 * 60 * 60)]
    pub(crate) lifetime: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Pub {
    /// The log, such as c:lobby.
    pub(crate) log: LogName,
    /// The text.
    pub(crate) text: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Sub {
    /// The log, such as c:lobby.
    pub(crate) log: LogName,
    /// Begin after this position; 0 = with the oldest event [default: with what comes].
    #[arg(long, value_name = "SEQ", conflicts_with = "last")]
    pub(crate) from: Option<u64>,
    /// Begin with the newest N events.
    #[arg(long, value_name = "N")]
    pub(crate) last: Option<u32>,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// End after this many events.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// The log, such as c:lobby.
    pub(crate) log: LogName,
    /// First position.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub(crate) from: u64,
    /// Only the newest N events.
    #[arg(long, value_name = "N", conflicts_with = "from")]
    pub(crate) last: Option<u32>,
    /// From this time on or, with --last, before it; as 2026-05-01T12:00:00Z, or Unix milliseconds.
    #[arg(long, value_name = "TIME", value_parser = date::parse)]
    pub(crate) at: Option<u64>,
    /// Messages as they stand, with edits, reactions and pins, instead of events.
    #[arg(long)]
    pub(crate) messages: bool,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// The file has one JSON object a line, each with a `type`:
///
///   {"type":"conversation","id":"tea","owner":"ann","members":["bob"],"title":"Tea"}
///   {"type":"message","conversation":"tea","id":"1","sender":"ann","time_ms":1500000000000,"text":"hi"}
///   {"type":"reaction","conversation":"tea","of":"1","sender":"bob","time_ms":1500000001000,"key":"+1"}
///   {"type":"cursor","conversation":"tea","user":"bob","read":"1"}
///
/// and also message.edit, message.redact and pin, which name a message by `of`. Ids are those of the other system. Lines
/// of one conversation are taken in their order. The same file can be imported again: what is there already stays as it
/// is, so an import that was interrupted goes on where it was.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Import {
    /// The file, or - for standard input.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// The admin listener of a running broker, and the folder with the token for it.
#[derive(Debug, Args)]
pub(crate) struct AdminConnection {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// The broker's admin listener [default: the one running on the data directory].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The log, such as c:lobby.
    pub(crate) log: LogName,
    /// The event's position, such as 1-5 or 5.
    pub(crate) position: String,
    /// The user who got it, or not.
    pub(crate) user: UserId,
    /// Whose data it is [default: that of development].
    #[arg(long, value_name = "TENANT", default_value = "dev", hide_default_value = true)]
    pub(crate) tenant: TenantId,
    /// The event's id; says so if the position holds another event.
    #[arg(long, value_name = "UUID")]
    pub(crate) event_id: Option<String>,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connection: AdminConnection,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Folder to write, which must not exist yet.
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) connection: AdminConnection,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup.
    pub(crate) from: PathBuf,
    /// Data directory to make, which must not exist yet or be empty.
    #[arg(long, value_name = "DIR", default_value = "antiphon-data")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Data directory or backup.
    #[arg(default_value = "antiphon-data")]
    pub(crate) dir: PathBuf,
}
