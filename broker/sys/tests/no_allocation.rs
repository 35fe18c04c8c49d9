//! The paths of a packet and of a durable write allocate nothing once their buffers have grown.
#![allow(clippy::unwrap_used, reason = "a failed call fails the test")]
#![allow(unsafe_code, reason = "counting allocations takes an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::UdpSocket;

use antiphon_sys::mesh::Mesh;
use antiphon_sys::poller::{Source, wait};
use antiphon_sys::ring::{DurableFile, PAGE_BYTES, WriteRing, probe};
use antiphon_sys::udp::{Ecn, PacketArena, Receiver, SendBatch, ShardSocket, Transmit};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counter neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn packets_and_messages_allocate_nothing_in_steady_state() {
    let sender = ShardSocket::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let socket = ShardSocket::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let transmit = Transmit {
        destination: socket.local_addr().unwrap(),
        src_ip: Some([127, 0, 0, 1].into()),
        ecn: Some(Ecn::Ect0),
        segment_size: Some(1200),
    };
    let (mut batch, mut receiver, mut arena) = (SendBatch::default(), Receiver::default(), PacketArena::default());
    let mut ports = Mesh::new(2, 64).unwrap();
    let mut turn = || {
        for length in [100, 1200, 6000] {
            batch.push(transmit, &[7; 6000][..length]).unwrap();
        }
        batch.flush(&sender).unwrap();
        let mut received = 0;
        while receiver.receive(&socket, 64, |datagram| received += arena.copy(datagram.payload).len()).unwrap() > 0 {}
        ports[0].try_send(1, received).unwrap();
        ports[0].ring_pending();
        let mut drained = 0;
        ports[1].drain(64, |_, message| drained += message);
        drained
    };
    for _ in 0..100 {
        turn();
    }
    let before = ALLOCATIONS.get();
    let received: usize = (0..1_000).map(|_| turn()).sum();
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(received, 1_000 * 7300);
}

#[test]
fn durable_writes_allocate_nothing_in_steady_state() {
    let dir = tempfile::tempdir().unwrap();
    if let Err(error) = probe(dir.path()) {
        return eprintln!("skipped: {error}");
    }
    let file = DurableFile::create(&dir.path().join("file")).unwrap();
    let mut ring = WriteRing::new(3).unwrap();
    let mut turn = || {
        for (n, pages) in [1, 4, 16].into_iter().enumerate() {
            let mut buffer = ring.buffer();
            (0..pages).for_each(|_| buffer.append(&[7; PAGE_BYTES]));
            ring.submit(&file, n as u64 * 65_536, buffer, n).unwrap();
        }
        let mut finished = 0;
        while finished < 3 {
            wait([Source::readable(&ring)], None).unwrap();
            ring.reap(|_, result| finished += usize::from(result.is_ok()));
        }
        finished
    };
    // Any of the three buffers may have to carry the longest write.
    for _ in 0..100 {
        turn();
    }
    let before = ALLOCATIONS.get();
    let finished: usize = (0..100).map(|_| turn()).sum();
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(finished, 300);
}
