//! `antiphon-bench-sockets`: one room of browsers on the gateway, on `ws` and on Socket.IO, in turn.
//!
//! Every server reads a message, gives it a place, an id and a time, and sends it to all readers as JSON. Antiphon also
//! verifies tokens, makes the message durable and carries it from the broker to the gateway; its CPU time is that of both.

use std::{
    error::Error,
    fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_loadgen::{machine, rounds::Spread, websocket::WebSocket};
use clap::Parser;
use serde_json::json;
use tokio::time;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Compares the CPU time and the memory of a socket on the gateway with two others.
#[derive(Debug, Clone, Parser)]
#[command(version)]
struct Args {
    /// Rounds.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
    /// Sockets that read.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    readers: usize,
    /// Bytes of a message's text.
    #[arg(long, value_name = "B", default_value_t = 200)]
    bytes: usize,
    /// Messages per second.
    #[arg(long, value_name = "R", default_value_t = 20)]
    rate: u32,
    /// Length of one measurement.
    #[arg(long, value_name = "S", default_value_t = 5)]
    seconds: u32,
    /// Processor of the servers.
    #[arg(long, value_name = "N", default_value_t = 0)]
    server_core: u32,
    /// Processor of the sockets' other ends.
    #[arg(long, value_name = "N", default_value_t = 1)]
    core: usize,
    /// The broker's binary. Default: `antiphon` beside this program.
    #[arg(long, value_name = "PATH")]
    antiphon: Option<PathBuf>,
    /// The peers, with their packages installed.
    #[arg(long, value_name = "DIR", default_value = "bench/peers")]
    peers: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Antiphon,
    Ws,
    SocketIo,
}

/// What one server cost.
#[derive(Debug, Clone, Copy)]
struct Figures {
    cpu_us_per_delivery: f64,
    kib_per_socket: f64,
}

/// A server process. Killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("antiphon-bench-sockets: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let _ = antiphon_sys::rlimit::raise_open_files();
    println!("1 -> {} x {} B at {}/s over WebSocket", args.readers, args.bytes, args.rate);
    println!(
        "{:>6} {:>10} {:>8} {:>10} {:>12} {:>12}",
        "round", "antiphon", "ws", "socket.io", "of ws", "of socket.io"
    );
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let round = [Kind::Antiphon, Kind::Ws, Kind::SocketIo].map(|kind| measure(args, kind));
        let [own, ws, socket_io] = round;
        let (own, ws, socket_io) = (own?, ws?, socket_io?);
        let cpu = [own, ws, socket_io].map(|figures| figures.cpu_us_per_delivery);
        println!(
            "{number:>6} {:>10.2} {:>8.2} {:>10.2} {:>12.2} {:>12.2}",
            cpu[0],
            cpu[1],
            cpu[2],
            cpu[0] / cpu[1],
            cpu[0] / cpu[2]
        );
        rounds.push([own, ws, socket_io]);
    }
    let tell = |name: &str, figure: &dyn Fn(&[Figures; 3]) -> f64| {
        if let Some(spread) = Spread::of(rounds.iter().map(figure)) {
            println!("{name:<26} {spread}");
        }
    };
    println!("median (range)");
    tell("CPU of ws's", &|round| round[0].cpu_us_per_delivery / round[1].cpu_us_per_delivery);
    tell("CPU of Socket.IO's", &|round| round[0].cpu_us_per_delivery / round[2].cpu_us_per_delivery);
    for (at, name) in ["antiphon", "ws", "socket.io"].into_iter().enumerate() {
        tell(&format!("{name}, CPU us/delivery"), &|round| round[at].cpu_us_per_delivery);
        tell(&format!("{name}, KiB/socket"), &|round| round[at].kib_per_socket);
    }
    Ok(())
}

fn measure(args: &Args, kind: Kind) -> Result<Figures> {
    let server = start(args, kind)?;
    machine::pin(args.core)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(load(args, kind, &server))
}

fn start(args: &Args, kind: Kind) -> Result<Server> {
    let data = tempfile::tempdir()?;
    let mut command = Command::new("taskset");
    command.args(["-c", &args.server_core.to_string()]);
    let (prefix, end) = match kind {
        Kind::Antiphon => {
            let own = std::env::current_exe()?.with_file_name("antiphon");
            command.arg(args.antiphon.clone().unwrap_or(own)).args(["serve", "--shards", "1", "--log-filter", "error"]);
            command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(data.path());
            ("gateway: http://", "ready")
        }
        Kind::Ws => {
            command.arg("node").arg(args.peers.join("ws.mjs"));
            ("listening ", "listening")
        }
        Kind::SocketIo => {
            command.arg("node").arg(args.peers.join("socketio.mjs"));
            ("listening ", "listening")
        }
    };
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or("no output")?;
    let mut address = None;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix(prefix) {
            address = if kind == Kind::Antiphon { rest.parse().ok() } else { format!("127.0.0.1:{rest}").parse().ok() };
        }
        if line.starts_with(end) {
            break;
        }
    }
    Ok(Server { child, address: address.ok_or("the server has not said where it listens")?, _data: data })
}

async fn load(args: &Args, kind: Kind, server: &Server) -> Result<Figures> {
    let pid = server.child.id();
    let received = Arc::new(AtomicU64::new(0));
    let mut half = 0;
    for number in 0..args.readers {
        if number == args.readers / 2 {
            time::sleep(Duration::from_secs(1)).await;
            half = resident_kib(pid)?;
        }
        let mut socket = open(kind, server.address, &format!("reader-{number}")).await?;
        let received = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok(message) = socket.next().await {
                received.fetch_add(events(kind, &message), Ordering::Relaxed);
            }
        });
    }
    time::sleep(Duration::from_secs(1)).await;
    let kib_per_socket = (resident_kib(pid)? - half) as f64 / (args.readers - args.readers / 2) as f64;
    let mut author = open(kind, server.address, "author").await?;
    // One second to warm up, which counts for nothing.
    publish(args, kind, &mut author, 1, 0).await?;
    let (deliveries, ticks) = (received.load(Ordering::Relaxed), cpu_ticks(pid)?);
    publish(args, kind, &mut author, args.seconds, args.rate.into()).await?;
    let sent = u64::from(args.rate) * u64::from(args.seconds);
    let expected = deliveries + sent * args.readers as u64;
    for _ in 0..100 {
        if received.load(Ordering::Relaxed) >= expected {
            break;
        }
        time::sleep(Duration::from_millis(50)).await;
    }
    let got = received.load(Ordering::Relaxed) - deliveries;
    if got < sent * args.readers as u64 {
        return Err(format!("{kind:?}: {got} of {} deliveries came", sent * args.readers as u64).into());
    }
    let used = (cpu_ticks(pid)? - ticks) as f64 / ticks_per_second() * 1e6;
    Ok(Figures { cpu_us_per_delivery: used / got as f64, kib_per_socket })
}

/// Connects, and does what has to be said before messages come.
async fn open(kind: Kind, address: SocketAddr, user: &str) -> Result<WebSocket> {
    match kind {
        Kind::Antiphon => {
            let mut socket = WebSocket::connect(address, "/api/v1/socket", Some("antiphon.json.v1")).await?;
            let token = token(address, user).await?;
            socket.send(&json!({ "op": "HELLO", "id": 1, "versions": [1], "token": token }).to_string()).await?;
            socket.next().await?;
            socket.send(r#"{"op":"SUBSCRIBE","id":2,"log":"c:lobby","tail":true}"#).await?;
            socket.next().await?;
            Ok(socket)
        }
        Kind::Ws => Ok(WebSocket::connect(address, "/", None).await?),
        Kind::SocketIo => {
            let mut socket = WebSocket::connect(address, "/socket.io/?EIO=4&transport=websocket", None).await?;
            socket.next().await?;
            socket.send("40").await?;
            socket.next().await?;
            Ok(socket)
        }
    }
}

/// A development token, as the console gets it.
async fn token(address: SocketAddr, user: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let body = json!({ "user": user }).to_string();
    let request = format!(
        "POST /dev/token HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(body)?;
    Ok(value["token"].as_str().ok_or("no token")?.to_owned())
}

async fn publish(args: &Args, kind: Kind, author: &mut WebSocket, seconds: u32, first: u64) -> Result<()> {
    let text = "x".repeat(args.bytes);
    let mut interval = time::interval(Duration::from_secs(1) / args.rate);
    for number in first..first + u64::from(args.rate * seconds) {
        interval.tick().await;
        let message = match kind {
            Kind::Antiphon => {
                let id = uuid::Builder::from_custom_bytes(u128::from(number).to_be_bytes()).into_uuid().to_string();
                json!({ "op": "SEND", "id": number + 10, "log": "c:lobby", "client_message_id": id, "text": text })
                    .to_string()
            }
            Kind::Ws => json!({ "text": text }).to_string(),
            Kind::SocketIo => format!("42{}", json!(["send", { "text": text }])),
        };
        author.send(&message).await?;
    }
    Ok(())
}

/// Events in one message.
fn events(kind: Kind, message: &[u8]) -> u64 {
    match kind {
        Kind::Antiphon => {
            message.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"op\":\"EVENT\"")).count() as u64
        }
        Kind::Ws => u64::from(message.starts_with(b"{\"op\":\"EVENT\"")),
        Kind::SocketIo => u64::from(message.starts_with(b"42[\"EVENT\"")),
    }
}

/// Processor time of a process, in ticks of the kernel.
fn cpu_ticks(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |at: usize| rest.split_whitespace().nth(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Ok(field(11) + field(12))
}

fn ticks_per_second() -> f64 {
    // What Linux tells user space on every architecture that this runs on.
    100.0
}

fn resident_kib(pid: u32) -> io::Result<i64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0))
}
