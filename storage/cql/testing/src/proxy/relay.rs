//! One connection of a client, and the one to the node that belongs to it: a thread for each direction.

use std::{
    collections::HashMap,
    io::{self, BufReader, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::{
    Fate, Judge, Request,
    frame::{Frame, Kind},
};

/// A driver asks these tables what the cluster is like.
const SYSTEM: &str = " FROM system";

/// What all connections of a proxy share.
pub(super) struct Shared {
    judge: Judge,
    pub(super) is_over: AtomicBool,
    next: AtomicU64,
    open: Mutex<HashMap<u64, [TcpStream; 2]>>,
    /// Statements by their ids, which are the same at every node and on every connection.
    statements: Mutex<HashMap<Vec<u8>, Arc<str>>>,
}

impl Shared {
    pub(super) fn new(judge: Judge) -> Self {
        Self {
            judge,
            is_over: AtomicBool::new(false),
            next: AtomicU64::new(0),
            open: Mutex::default(),
            statements: Mutex::default(),
        }
    }

    pub(super) fn cut_all(&self) {
        let numbers: Vec<u64> = lock(&self.open).keys().copied().collect();
        numbers.into_iter().for_each(|number| self.cut(number));
    }

    /// Both ends learn of it; the threads of the connection end then.
    fn cut(&self, number: u64) {
        for stream in lock(&self.open).remove(&number).into_iter().flatten() {
            // One that the other side has closed cannot be closed again.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// What becomes of the answer that is awaited on a stream.
enum Awaited {
    /// It brings the id of this statement, and passes.
    Id(Arc<str>),
    /// This takes its place.
    Replaced(Frame),
    Lost,
}

struct Relay {
    node: usize,
    client: Mutex<TcpStream>,
    server: Mutex<TcpStream>,
    awaited: Mutex<HashMap<[u8; 2], Awaited>>,
    shared: Arc<Shared>,
}

/// Begins to pass frames in both directions.
pub(super) fn start(node: usize, client: TcpStream, server: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let number = shared.next.fetch_add(1, Ordering::Relaxed);
    let (from_client, from_server) = (client.try_clone()?, server.try_clone()?);
    lock(&shared.open).insert(number, [client.try_clone()?, server.try_clone()?]);
    let relay = Arc::new(Relay {
        node,
        client: Mutex::new(client),
        server: Mutex::new(server),
        awaited: Mutex::default(),
        shared: Arc::clone(shared),
    });
    let both =
        [(from_client, Relay::request as fn(&Arc<Relay>, Frame) -> io::Result<()>), (from_server, Relay::answer)];
    for (from, pass) in both {
        let relay = Arc::clone(&relay);
        let run = move || {
            let mut from = BufReader::new(from);
            // Until either side closes.
            while Frame::read(&mut from).and_then(|frame| pass(&relay, frame)).is_ok() {}
            relay.shared.cut(number);
        };
        thread::Builder::new().name("cql-relay".into()).spawn(run)?;
    }
    Ok(())
}

impl Relay {
    fn request(self: &Arc<Self>, frame: Frame) -> io::Result<()> {
        match frame.kind() {
            Kind::Prepare(text) => self.await_answer(&frame, Awaited::Id(String::from_utf8_lossy(text).into())),
            Kind::Execute { id, is_batch } => {
                let statement = lock(&self.shared.statements).get(id).cloned();
                if let Some(statement) = statement.filter(|statement| !statement.contains(SYSTEM)) {
                    return self.judged(&frame, &statement, is_batch);
                }
            }
            _ => {}
        }
        write(&self.server, &frame)
    }

    fn judged(self: &Arc<Self>, frame: &Frame, statement: &str, is_batch: bool) -> io::Result<()> {
        let request = Request { node: self.node, statement, is_batch, body: &frame.body };
        let timeout = || frame.write_timeout(request.write_type());
        match (self.shared.judge)(request) {
            Fate::Pass => write(&self.server, frame),
            Fate::TimeOut { is_done: false } => write(&self.client, &timeout()),
            Fate::Silence { is_done: false } => Ok(()),
            Fate::TimeOut { is_done: true } => {
                self.await_answer(frame, Awaited::Replaced(timeout()));
                write(&self.server, frame)
            }
            Fate::Silence { is_done: true } => {
                self.await_answer(frame, Awaited::Lost);
                write(&self.server, frame)
            }
            Fate::Late(by) => {
                let (relay, frame) = (Arc::clone(self), frame.clone());
                thread::spawn(move || {
                    thread::sleep(by);
                    // The connection may be closed by then; that is one of the things that can happen to it.
                    let _ = write(&relay.server, &frame);
                });
                Ok(())
            }
        }
    }

    fn answer(self: &Arc<Self>, frame: Frame) -> io::Result<()> {
        let awaited = lock(&self.awaited).remove(&frame.stream());
        match awaited {
            Some(Awaited::Lost) => Ok(()),
            Some(Awaited::Replaced(by)) => write(&self.client, &by),
            Some(Awaited::Id(statement)) => {
                if let Kind::Prepared(id) = frame.kind() {
                    lock(&self.shared.statements).insert(id.to_vec(), statement);
                }
                write(&self.client, &frame)
            }
            None => write(&self.client, &frame),
        }
    }

    fn await_answer(&self, request: &Frame, awaited: Awaited) {
        lock(&self.awaited).insert(request.stream(), awaited);
    }
}

fn write(to: &Mutex<TcpStream>, frame: &Frame) -> io::Result<()> {
    lock(to).write_all(&frame.bytes())
}

/// Nothing that is guarded here is left half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
