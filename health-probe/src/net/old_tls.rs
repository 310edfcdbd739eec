//! Whether a server still takes TLS 1.1 or older, which no library here speaks any more: a hello is sent, and how it is answered
//! says it. Nothing is agreed upon, and nothing else is sent.

use std::io::ErrorKind;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The version that is offered as the newest one: TLS 1.1. A server that has only an older one answers with that.
const OFFERED: [u8; 2] = [3, 2];

/// The version that a server takes of those before TLS 1.2; `None` where it refuses all of them.
///
/// # Errors
/// Where the answer is neither: then it is not known.
pub(crate) async fn accepted<S>(stream: &mut S, name: Option<&str>) -> std::io::Result<Option<&'static str>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let nonce: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
    match stream.write_all(&hello(&nonce, name)).await {
        Ok(()) => {}
        Err(e) if is_end(&e) => return Ok(None),
        Err(e) => return Err(e),
    }
    // The head of a record (kind, version, length), and of a handshake message (kind, length, version).
    let mut head = [0; 11];
    for at in 0..head.len() {
        match stream.read_exact(&mut head[at..=at]).await {
            // An alert: it refuses.
            Ok(_) if head[0] == 21 => return Ok(None),
            Ok(_) => {}
            // It hung up without one.
            Err(e) if is_end(&e) && at == 0 => return Ok(None),
            Err(e) => return Err(e),
        }
    }
    match head {
        // A server's hello.
        [22, _, _, _, _, 2, _, _, _, 3, 0] => Ok(Some("SSLv3")),
        [22, _, _, _, _, 2, _, _, _, 3, 1] => Ok(Some("TLSv1.0")),
        [22, _, _, _, _, 2, _, _, _, 3, 2] => Ok(Some("TLSv1.1")),
        _ => Err(std::io::Error::new(ErrorKind::InvalidData, "an answer to an old hello that is none")),
    }
}

fn is_end(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// A hello of RFC 4346, with the name that is asked for (RFC 6066) and the curves (RFC 8422).
fn hello(nonce: &[u8; 32], name: Option<&str>) -> Vec<u8> {
    // ECDHE with AES, DHE with AES, AES, 3DES, RC4, and that no renegotiation is meant (RFC 5746).
    const SUITES: [u16; 15] = [
        0xc00a, 0xc009, 0xc014, 0xc013, 0x0039, 0x0038, 0x0033, 0x0032, 0x0035, 0x002f, 0xc012, 0xc008, 0x000a, 0x0005,
        0x00ff,
    ];
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let entry = [&[0u8][..], &sized(name.as_bytes())].concat();
        extensions.extend([&[0, 0][..], &sized(&sized(&entry))].concat());
    }
    // x25519, P-256, P-384, P-521; points as they are.
    extensions.extend([0, 10, 0, 10, 0, 8, 0, 29, 0, 23, 0, 24, 0, 25]);
    extensions.extend([0, 11, 0, 2, 1, 0]);
    let suites: Vec<u8> = SUITES.iter().flat_map(|s| s.to_be_bytes()).collect();
    // No session, no compression.
    let body = [&OFFERED[..], nonce, &[0], &sized(&suites), &[1, 0], &sized(&extensions)].concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    // Records begin with TLS 1.0, whatever is offered.
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// Bytes behind their length in two bytes. What is sent here is far shorter than that can say.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(with: &'static [u8]) -> std::io::Result<Option<&'static str>> {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        let server = tokio::spawn(async move {
            let mut hello = [0; 5];
            theirs.read_exact(&mut hello).await.unwrap();
            let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
            theirs.read_exact(&mut rest).await.unwrap();
            assert_eq!(rest.len(), usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 4, "lengths agree");
            theirs.write_all(with).await.unwrap();
        });
        let outcome = accepted(&mut ours, Some("shop.test")).await;
        server.await.unwrap();
        outcome
    }

    #[tokio::test]
    async fn an_answer_says_which_version_or_none_and_anything_else_says_nothing() {
        assert_eq!(answered(b"\x16\x03\x02\x00\x40\x02\x00\x00\x3c\x03\x02").await.unwrap(), Some("TLSv1.1"));
        assert_eq!(answered(b"\x16\x03\x01\x00\x40\x02\x00\x00\x3c\x03\x01").await.unwrap(), Some("TLSv1.0"));
        assert_eq!(answered(b"\x15\x03\x02\x00\x02\x02\x46").await.unwrap(), None, "an alert");
        assert_eq!(answered(b"").await.unwrap(), None, "it hung up");
        for none in [&b"HTTP/1.1 400 Bad"[..], b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c\x03\x03", b"\x16\x03"] {
            assert!(answered(none).await.is_err(), "{none:?}");
        }
    }
}
