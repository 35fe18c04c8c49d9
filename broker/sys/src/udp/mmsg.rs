//! `sendmmsg`: many messages to many receivers with one system call.
//!
//! Everything the kernel reads lies on this function's stack for the time of the call: no pointer is stored anywhere.
//! The arrays stay uninitialised beyond the messages at hand, so a small batch costs little.
#![allow(unsafe_code, reason = "sendmmsg with control messages has no safe interface in the crates used here")]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::batch::{MAX_BATCH, Message};

/// Room for an ECN mark, a source address and a segment size, each with its header.
const CONTROL: usize = 96;

/// Aligned for a control message header.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Sends the first messages, at most [`MAX_BATCH`] of them, and returns how many the kernel took.
///
/// An error is about the first message, none of them is sent then.
pub(super) fn send<'a>(socket: BorrowedFd<'_>, messages: impl Iterator<Item = Message<'a>>) -> io::Result<usize> {
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_BATCH];
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_BATCH];
    let mut names = [const { MaybeUninit::<Name>::uninit() }; MAX_BATCH];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; MAX_BATCH];
    let mut count = 0;
    for message in messages.take(MAX_BATCH) {
        let (name, name_length) = encode_name(message.transmit.destination);
        let control = controls[count].write(Control([0; CONTROL]));
        let control_length = encode_control(control, &message);
        let vector = libc::iovec { iov_base: message.bytes.as_ptr().cast_mut().cast(), iov_len: message.bytes.len() };
        // SAFETY: a message header of all zeroes is a valid one: null pointers, no lengths.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        header.msg_hdr.msg_name = (&raw mut *names[count].write(name)).cast();
        header.msg_hdr.msg_namelen = name_length;
        header.msg_hdr.msg_iov = vectors[count].write(vector);
        header.msg_hdr.msg_iovlen = 1;
        if control_length > 0 {
            header.msg_hdr.msg_control = (&raw mut control.0).cast();
            header.msg_hdr.msg_controllen = control_length as _;
        }
        headers[count].write(header);
        count += 1;
    }
    // SAFETY: the first `count` headers are initialised and point to names, vectors and control messages in the arrays
    // above and to bytes borrowed by `messages`, with their lengths; all of them outlive the call, which only reads
    // them, except for the sent lengths in `headers`, which is mutable.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr().cast(), count as libc::c_uint, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn encode_name(address: SocketAddr) -> (Name, libc::socklen_t) {
    match address {
        SocketAddr::V4(address) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            (Name { v4: name }, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            (Name { v6: name }, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

/// Writes the control messages of `message` and returns their length.
fn encode_control(control: &mut Control, message: &Message<'_>) -> usize {
    let mut writer = ControlWriter { bytes: &mut control.0, length: 0 };
    let transmit = &message.transmit;
    if let Some(ecn) = transmit.ecn {
        let mark = (ecn as libc::c_int).to_ne_bytes();
        if speaks_ipv4(transmit.destination.ip()) {
            writer.push(libc::IPPROTO_IP, libc::IP_TOS, &mark);
        } else {
            writer.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &mark);
        }
    }
    match transmit.src_ip {
        // An `in_pktinfo`: no interface, the source, and a destination the kernel ignores.
        Some(IpAddr::V4(ip)) => {
            let mut info = [0; size_of::<libc::in_pktinfo>()];
            info[4..8].copy_from_slice(&ip.octets());
            writer.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        // An `in6_pktinfo`: the source, no interface.
        Some(IpAddr::V6(ip)) => {
            let mut info = [0; size_of::<libc::in6_pktinfo>()];
            info[..16].copy_from_slice(&ip.octets());
            writer.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if message.is_burst() {
        // A datagram has less than 64 KiB; an absurd size reaches the kernel as one that it refuses.
        let segment = transmit.segment_size.and_then(|size| u16::try_from(size).ok()).unwrap_or(u16::MAX);
        writer.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    }
    writer.length
}

fn speaks_ipv4(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some(),
    }
}

struct ControlWriter<'buf> {
    bytes: &'buf mut [u8; CONTROL],
    length: usize,
}

impl ControlWriter<'_> {
    /// Appends one control message. The three kinds together fit, which `the_fullest_control_fits` pins down.
    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        // SAFETY: both only compute with their argument.
        let (length, space) =
            unsafe { (libc::CMSG_LEN(data.len() as u32) as usize, libc::CMSG_SPACE(data.len() as u32) as usize) };
        let place = &mut self.bytes[self.length..self.length + space];
        // SAFETY: a control message header of all zeroes is a valid one.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = length as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        // SAFETY: `place` has `space` bytes, which is more than a header, and the write needs no alignment.
        unsafe { place.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header) };
        place[length - data.len()..length].copy_from_slice(data);
        self.length += space;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::{Ecn, Transmit};

    #[test]
    fn the_fullest_control_fits() {
        let transmit = Transmit {
            destination: "[::1]:1".parse().unwrap(),
            src_ip: Some("::1".parse().unwrap()),
            ecn: Some(Ecn::Ce),
            segment_size: Some(4),
        };
        let mut control = Control([0; CONTROL]);
        let message = Message { transmit, bytes: &[0; 8], end: 8 };
        assert_eq!(encode_control(&mut control, &message), 24 + 40 + 24);
    }
}
