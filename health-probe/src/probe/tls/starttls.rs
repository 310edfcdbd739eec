//! What is spoken before TLS begins, by protocol.

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What is spoken before TLS begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Starttls {
    /// Nothing: TLS from the first byte. The clock is compared too, by a request for the headers of `/`, where that is answered in two
    /// seconds.
    #[default]
    None,
    /// SMTP, as on port 587.
    Smtp,
    /// IMAP, as on port 143.
    Imap,
    /// POP3, as on port 110.
    Pop3,
    /// PostgreSQL, as on port 5432.
    Postgres,
    /// MySQL and MariaDB, as on port 3306. A look ends without a login, which counts as a connection error of this host: after
    /// `max_connect_errors` (100) of them in a row the server blocks it. A login that succeeds, such as a
    /// [`DatabaseProbe`](crate::DatabaseProbe)'s from the same host, begins the count anew.
    Mysql,
}

impl Starttls {
    /// Speaks what comes before TLS; dialogues of a few bounded lines or packets.
    pub(crate) async fn speak(self, stream: TcpStream) -> std::io::Result<TcpStream> {
        match self {
            Self::None => Ok(stream),
            Self::Postgres => {
                let mut stream = stream;
                // SSLRequest: its length, and the code 80877103.
                stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
                match stream.read_u8().await? {
                    b'S' => Ok(stream),
                    _ => Err(refused("the server speaks no TLS")),
                }
            }
            Self::Mysql => mysql(stream).await,
            Self::Smtp => {
                let mut talk = BufReader::new(stream);
                smtp_reply(&mut talk, "220").await?;
                talk.write_all(b"EHLO caretaker.invalid\r\n").await?;
                smtp_reply(&mut talk, "250").await?;
                talk.write_all(b"STARTTLS\r\n").await?;
                smtp_reply(&mut talk, "220").await?;
                plain(talk)
            }
            Self::Imap => {
                let mut talk = BufReader::new(stream);
                expect(&line(&mut talk).await?, "* OK")?;
                talk.write_all(b"a STARTTLS\r\n").await?;
                expect(&line(&mut talk).await?, "a OK")?;
                plain(talk)
            }
            Self::Pop3 => {
                let mut talk = BufReader::new(stream);
                expect(&line(&mut talk).await?, "+OK")?;
                talk.write_all(b"STLS\r\n").await?;
                expect(&line(&mut talk).await?, "+OK")?;
                plain(talk)
            }
        }
    }
}

/// What was sent before TLS began must not be taken for what comes after: an injection (CVE-2011-0411).
fn plain(talk: BufReader<TcpStream>) -> std::io::Result<TcpStream> {
    match talk.buffer().is_empty() {
        true => Ok(talk.into_inner()),
        false => Err(refused("the server sent more than its answer before TLS began")),
    }
}

/// The server greets first, and says in its capabilities whether it speaks TLS; the client then asks for it by the first 32 bytes
/// of its answer (Protocol::SSLRequest of the protocol's documentation).
async fn mysql(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    const SSL: u32 = 0x800;
    // Long passwords, the protocol since 4.1, TLS, authentication by a plugin.
    const CAPABILITIES: u32 = 0x1 | 0x200 | SSL | 0x8000 | 0x8_0000;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [a, b, c, _] = head;
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    if !(20..=2048).contains(&length) {
        return Err(refused("what the server says is no greeting of MySQL"));
    }
    let mut greeting = vec![0; length];
    stream.read_exact(&mut greeting).await?;
    // An error, such as of a host that is blocked: its number, and what it says.
    if let [0xff, _, _, said @ ..] = greeting.as_slice() {
        return Err(refused(&format!("the server said {:?}", String::from_utf8_lossy(&said[..said.len().min(100)]))));
    }
    // The protocol's number, the version up to a zero, the session (4), the first half of a nonce (8), a zero.
    let version = greeting.iter().position(|b| *b == 0).filter(|_| greeting.first() == Some(&10));
    let at = version.map(|end| end + 1 + 4 + 8 + 1);
    let Some([low, high]) = at.and_then(|at| greeting.get(at..at + 2)) else {
        return Err(refused("what the server says is no greeting of MySQL"));
    };
    if u32::from(u16::from_le_bytes([*low, *high])) & SSL == 0 {
        return Err(refused("the server speaks no TLS"));
    }
    let mut request = vec![32, 0, 0, 1];
    request.extend(CAPABILITIES.to_le_bytes());
    request.extend((1u32 << 24).to_le_bytes());
    // utf8mb4, and what is left for later.
    request.push(45);
    request.resize(4 + 32, 0);
    stream.write_all(&request).await?;
    Ok(stream)
}

fn refused(why: &str) -> std::io::Error {
    std::io::Error::other(why.to_owned())
}

fn expect(line: &str, wanted: &str) -> std::io::Result<()> {
    match line.starts_with(wanted) {
        true => Ok(()),
        false => Err(refused(&format!("the server said {:?}", line.chars().take(100).collect::<String>()))),
    }
}

pub(super) async fn line<S: AsyncRead + Unpin>(from: &mut BufReader<S>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    from.take(2048).read_until(b'\n', &mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// A reply of SMTP, of one or more lines; its lines.
async fn smtp_reply<S: AsyncRead + Unpin>(from: &mut BufReader<S>, wanted: &str) -> std::io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for _ in 0..64 {
        let line = line(from).await?;
        expect(&line, wanted)?;
        let last = line.as_bytes().get(3) != Some(&b'-');
        lines.push(line);
        if last {
            return Ok(lines);
        }
    }
    Err(refused("the server's reply has no end"))
}
