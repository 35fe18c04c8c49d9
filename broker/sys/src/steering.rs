//! The kernel's side of steering: a classic BPF program that picks a socket of a SO_REUSEPORT group by its position.
//!
//! The kernel runs the program with the UDP payload at offset 0 and takes its result as the index of the socket. A load
//! past the end of the payload ends the program with 0, so a runt goes to the first socket.
#![allow(unsafe_code, reason = "attaching a filter has no safe interface in the crates used here")]

use std::io;
use std::os::fd::BorrowedFd;

/// Makes the kernel choose the socket of the whole group that `last` belongs to.
///
/// All `shards` sockets of the group must be bound already, in shard order. Errors are the kernel's, or `Unsupported`
/// where it has no such filter.
#[cfg(target_os = "linux")]
pub(crate) fn attach(last: BorrowedFd<'_>, shards: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let modulus = u32::try_from(shards).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut program = program(modulus);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the option takes a `sock_fprog`, whose length is given; it points to `program`, which holds that many
    // instructions, outlives the call and is only read by it.
    let result = unsafe {
        libc::setsockopt(
            last.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// See the Linux version: here the group has to be steered in user space.
#[cfg(not(target_os = "linux"))]
pub(crate) fn attach(_last: BorrowedFd<'_>, _shards: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn program(modulus: u32) -> [libc::sock_filter; 7] {
    use crate::cid::{LONG_HEADER_BYTE, LONG_HEADER_FLAG, SHORT_HEADER_BYTE};

    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: usize| instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, offset as u32);
    [
        load(0),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 2, 0, u32::from(LONG_HEADER_FLAG)),
        load(SHORT_HEADER_BYTE),
        instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
        load(LONG_HEADER_BYTE),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, modulus),
        instruction(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
    ]
}
