//! What the fuzz targets check, apart from libFuzzer, so that a stable test can replay their corpora.

use antiphon_protocol::{
    DecodeError, Decoder, RawFrame,
    limits::{FRAME_BYTES_MAX, PRE_AUTH_BYTES_MAX},
};
use bytes::Bytes;

use crate::every_body::decode_every_body;

/// `data` is a whole stream, and a body: every decoder reads it, and what is accepted is written again as it was read.
#[allow(dead_code)]
pub(crate) fn frame(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    decode_every_body(&data);
    for frame in decode(&data, &[data.len()], FRAME_BYTES_MAX).0 {
        decode_every_body(&frame.body);
    }
}

/// The first 17 bytes are the sizes of chunks and the limit of a frame, the rest is a stream: however it is cut, the same
/// frames and the same error come out, and no more than a frame and a chunk is buffered.
#[allow(dead_code)]
pub(crate) fn chunked_decoder(data: &[u8]) {
    let Some((settings, stream)) = data.split_first_chunk::<17>() else { return };
    let sizes = settings[1..].iter().map(|size| usize::from(*size)).collect::<Vec<_>>();
    let limit = [64, 1_024, PRE_AUTH_BYTES_MAX, FRAME_BYTES_MAX][usize::from(settings[0]) % 4];
    let stream = Bytes::copy_from_slice(stream);
    assert_eq!(decode(&stream, &sizes, limit), decode(&stream, &[stream.len()], limit));
}

/// Everything that `stream` holds when it comes in chunks of these sizes, over and over.
fn decode(stream: &Bytes, sizes: &[usize], limit: usize) -> (Vec<RawFrame>, Option<DecodeError>) {
    let (mut decoder, mut found, mut rest) = (Decoder::new(limit), Vec::new(), stream.clone());
    for size in sizes.iter().cycle() {
        // A chunk of no bytes is a chunk too, but only bytes make progress.
        let chunk = rest.split_to((*size).max(1).min(rest.len()));
        let chunk_len = chunk.len();
        decoder.push(chunk);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
        assert!(decoder.buffered() <= limit + chunk_len);
        if rest.is_empty() {
            break;
        }
    }
    (found, None)
}
