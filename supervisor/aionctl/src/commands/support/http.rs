//! What aiond tells everybody on this host over HTTP: its figures, and how its parts are.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::bundle::{Body, Found, Limits, Piece};

/// The socket of an installed daemon, which leaves its address elsewhere than beside it.
const INSTALLED: (&str, &str) = ("/run/aion/aion.sock", "/run/aiond/http");
/// A status line and headers; aiond's are shorter.
const HEAD: usize = 16 << 10;

/// Both, from the daemon that listens at `socket`.
pub(super) fn pieces(socket: &Path) -> Vec<Piece> {
    let piece = |name: &str, path: &'static str, limits: Limits| {
        let place = address_file(socket);
        Piece::new(name, limits, async move { get(&place, path, limits.bytes).await })
    };
    vec![piece("health.json", "/readyz", Limits::SMALL), piece("metrics.txt", "/metrics", Limits::LARGE)]
}

/// Where a daemon says where it serves HTTP.
fn address_file(socket: &Path) -> PathBuf {
    if socket == Path::new(INSTALLED.0) { INSTALLED.1.into() } else { socket.with_file_name("http") }
}

async fn get(place: &Path, path: &str, most: usize) -> Found {
    let text = std::fs::read_to_string(place)
        .map_err(|error| format!("{} does not say where HTTP is served: {error}", place.display()))?;
    let address = text.trim().parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback());
    let address = address.ok_or_else(|| format!("{} holds no address of this host", place.display()))?;
    let answer =
        ask(address, path, most).await.map_err(|error| format!("http://{address}{path}: {error}"))?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let head = head.ok_or_else(|| format!("http://{address}{path}: the answer is no HTTP"))?;
    let (head, body) = answer.split_at(head);
    let body = body.get(4..).unwrap_or_default();
    let status = String::from_utf8_lossy(head).split(' ').nth(1).unwrap_or_default().to_owned();
    match serde_json::from_slice(body) {
        // A daemon with a part that does not work says 503, and which.
        Ok(value) if path == "/readyz" => Ok(Body::Json(value)),
        _ if status == "200" => Ok(Body::Text { bytes: body.to_vec(), cut: false }),
        _ => Err(format!("http://{address}{path} answers {status}")),
    }
}

async fn ask(address: SocketAddr, path: &str, most: usize) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let most = u64::try_from(most.saturating_add(HEAD)).unwrap_or(u64::MAX);
    stream.take(most).read_to_end(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_daemon_has_its_address_in_a_folder_of_its_own() {
        assert_eq!(address_file(Path::new("/run/aion/aion.sock")), Path::new("/run/aiond/http"));
        assert_eq!(address_file(Path::new("/x/.aion/run/aion.sock")), Path::new("/x/.aion/run/http"));
    }

    #[tokio::test]
    async fn what_is_no_address_of_this_host_is_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("http");
        assert!(get(&place, "/metrics", 10).await.unwrap_err().contains("does not say"));
        std::fs::write(&place, "192.0.2.1:80\n").unwrap();
        assert!(get(&place, "/metrics", 10).await.unwrap_err().contains("no address of this host"));
    }
}
