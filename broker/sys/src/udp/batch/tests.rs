use super::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// A socket that does what a script says: loopback is never full and never loses its offload.
#[derive(Default)]
struct ScriptedWire {
    script: RefCell<VecDeque<Result<usize, i32>>>,
    without_segmentation: Cell<bool>,
    taken: RefCell<Vec<Vec<u8>>>,
}

impl ScriptedWire {
    fn new(script: impl IntoIterator<Item = Result<usize, i32>>) -> Self {
        Self { script: RefCell::new(script.into_iter().collect()), ..Self::default() }
    }

    fn taken(&self) -> String {
        self.taken.borrow().iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<Vec<_>>().join(" ")
    }
}

impl Wire for ScriptedWire {
    /// Takes as many as the script's next line says, and everything once the script is over.
    fn send<'a>(&self, messages: impl Iterator<Item = Message<'a>>) -> io::Result<usize> {
        let limit = self.script.borrow_mut().pop_front().unwrap_or(Ok(usize::MAX));
        let limit = limit.map_err(io::Error::from_raw_os_error)?;
        let mut taken = self.taken.borrow_mut();
        let before = taken.len();
        taken.extend(messages.take(limit).map(|message| message.bytes.to_vec()));
        Ok(taken.len() - before)
    }

    fn segmentation(&self) -> bool {
        !self.without_segmentation.get()
    }

    fn disable_segmentation(&self) {
        self.without_segmentation.set(true);
    }
}

fn transmit(segment_size: Option<usize>) -> Transmit {
    Transmit { destination: "127.0.0.1:9".parse().unwrap(), src_ip: None, ecn: None, segment_size }
}

fn batch(messages: &[&str]) -> SendBatch {
    let mut batch = SendBatch::default();
    for message in messages {
        batch.push(transmit(None), message.as_bytes()).unwrap();
    }
    batch
}

#[test]
fn what_a_full_socket_does_not_take_stays_in_order() {
    let wire = ScriptedWire::new([Ok(2), Err(libc::EAGAIN)]);
    let mut batch = batch(&["a", "b", "c", "d"]);
    assert_eq!(batch.flush_to(&wire).unwrap(), 2);
    assert_eq!(batch.len(), 2);
    batch.push(transmit(None), b"e").unwrap();
    assert_eq!(batch.flush_to(&wire).unwrap(), 3);
    assert!(batch.is_empty());
    assert_eq!(wire.taken(), "a b c d e");
}

#[test]
fn an_interrupted_send_is_repeated() {
    let wire = ScriptedWire::new([Err(libc::EINTR), Ok(1), Err(libc::EINTR)]);
    assert_eq!(batch(&["a", "b"]).flush_to(&wire).unwrap(), 2);
    assert_eq!(wire.taken(), "a b");
}

#[test]
fn a_refused_message_is_dropped_and_counted_and_the_others_are_sent() {
    let wire = ScriptedWire::new([Ok(1), Err(libc::ECONNREFUSED), Ok(1), Err(libc::EMSGSIZE)]);
    let mut batch = batch(&["a", "b", "c", "d", "e"]);
    assert_eq!(batch.flush_to(&wire).unwrap(), 3);
    assert_eq!(batch.refused(), 2);
    assert_eq!(wire.taken(), "a c e");
}

#[test]
fn a_broken_socket_is_an_error_and_loses_nothing() {
    let wire = ScriptedWire::new([Ok(1), Err(libc::EBADF)]);
    let mut batch = batch(&["a", "b"]);
    assert_eq!(batch.flush_to(&wire).unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(batch.len(), 1);
}

#[test]
fn a_full_batch_refuses_more_and_keeps_what_it_has() {
    let mut batch = batch(&["x"; MAX_BATCH]);
    assert!(batch.is_full());
    assert_eq!(batch.push(transmit(None), b"y"), Err(BatchFull));
    assert_eq!(batch.push_with(|_| unreachable!()), Err(BatchFull));
    assert_eq!(batch.flush_to(&ScriptedWire::default()).unwrap(), MAX_BATCH);
}

#[test]
fn a_writer_with_nothing_to_send_takes_no_slot() {
    let mut batch = batch(&["a"]);
    let wrote = batch.push_with(|buffer| {
        buffer.extend_from_slice(b"half");
        None
    });
    assert_eq!(wrote, Ok(false));
    batch.push(transmit(None), b"b").unwrap();
    let wire = ScriptedWire::default();
    batch.flush_to(&wire).unwrap();
    assert_eq!(wire.taken(), "a b");
}

#[test]
fn a_burst_whose_first_packet_passes_alone_ends_segmentation_and_loses_nothing() {
    let wire = ScriptedWire::new([Ok(1), Err(libc::EIO)]);
    let mut batch = batch(&["a"]);
    batch.push(transmit(Some(2)), b"b1b2b3c").unwrap();
    batch.push(transmit(Some(4)), b"d").unwrap();
    assert_eq!(batch.flush_to(&wire).unwrap(), 6);
    assert!(!wire.segmentation());
    assert_eq!(wire.taken(), "a b1 b2 b3 c d");
    assert_eq!(batch.refused(), 0);
}

#[test]
fn a_burst_whose_first_packet_fails_alone_too_is_refused_and_keeps_segmentation() {
    let wire = ScriptedWire::new([Err(libc::EINVAL), Err(libc::EINVAL)]);
    let mut batch = SendBatch::default();
    batch.push(transmit(Some(2)), b"b1b2").unwrap();
    batch.push(transmit(Some(2)), b"c1c2").unwrap();
    assert_eq!(batch.flush_to(&wire).unwrap(), 1);
    assert!(wire.segmentation());
    assert_eq!(batch.refused(), 1);
    assert_eq!(wire.taken(), "c1c2");
}

#[test]
fn a_burst_in_single_packets_resumes_where_the_socket_was_full() {
    let wire = ScriptedWire::new([Ok(2), Err(libc::EAGAIN)]);
    wire.disable_segmentation();
    let mut batch = SendBatch::default();
    batch.push(transmit(Some(2)), b"b1b2b3").unwrap();
    assert_eq!(batch.flush_to(&wire).unwrap(), 2);
    assert!(!batch.is_empty());
    assert_eq!(batch.flush_to(&wire).unwrap(), 1);
    assert_eq!(wire.taken(), "b1 b2 b3");
}

#[test]
fn one_by_one_is_as_good_as_together() {
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = ShardSocket::new(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let destination = receiver.local_addr().unwrap();
    let transmit = Transmit { destination, src_ip: None, ecn: Some(Ecn::Ect0), segment_size: None };
    let message = |bytes| Message { transmit, bytes, end: 1 };
    let sent = send_one_by_one(&socket, [message(b"a"), message(b"b"), message(&[0; 70_000])].into_iter());
    assert_eq!(sent.unwrap(), 2);
    let refused = send_one_by_one(&socket, [message(&[0; 70_000])].into_iter());
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    let mut buffer = [0; 8];
    for expected in [b"a", b"b"] {
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], expected);
    }
}
