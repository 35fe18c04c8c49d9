//! The native protocol, version 4, as far as the client and the proxy of this crate have it in common.

/// Version, flags, stream (2), opcode, length of the body (4).
pub(crate) const HEADER_BYTES: usize = 9;
/// The bit of the version that marks answers.
pub(crate) const ANSWER: u8 = 0x80;

/// Writes a string: its length in two bytes, and itself. Only short constants of this crate come here.
pub(crate) fn put_string(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

/// Takes what the protocol defines off the front of a body; `None` if there is not enough.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// Bytes with their length in two bytes before them.
    pub(crate) fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    /// Bytes with their length in four bytes before them.
    pub(crate) fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.bytes(length as usize)
    }

    /// The same, where a negative length is null.
    pub(crate) fn value(&mut self) -> Option<Option<Vec<u8>>> {
        match usize::try_from(self.u32()?.cast_signed()) {
            Ok(length) => Some(Some(self.bytes(length)?.to_vec())),
            Err(_) => Some(None),
        }
    }

    pub(crate) fn string(&mut self) -> Option<String> {
        Some(String::from_utf8_lossy(self.short()?).into_owned())
    }

    pub(crate) fn skip_strings(&mut self) -> Option<()> {
        (0..self.u16()?).try_for_each(|_| self.string().map(drop))
    }
}
