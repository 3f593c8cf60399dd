use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
}

/// The response to a request.
pub(super) enum Reply {
    /// Status, headers and the whole body.
    Whole(u16, Vec<(&'static str, String)>, Arc<Vec<u8>>),
    /// As `Whole` with status 200, but the connection closes after this many bytes of the body.
    Cut(Vec<(&'static str, String)>, Arc<Vec<u8>>, usize),
    /// The headers and this many bytes of the body, and then nothing while the client waits.
    Stalled(Vec<(&'static str, String)>, Arc<Vec<u8>>, usize),
    /// No response while the client waits.
    Silence,
}

/// An HTTP server on a free local port that records requests and sends the given responses.
pub(super) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let closing = Arc::new(AtomicBool::new(false));
        let answer = Arc::new(answer);
        let thread = std::thread::spawn({
            let (requests, closing) = (requests.clone(), closing.clone());
            move || {
                for stream in listener.incoming() {
                    if closing.load(Ordering::SeqCst) {
                        return;
                    }
                    let (requests, answer) = (requests.clone(), answer.clone());
                    std::thread::spawn(move || {
                        // A client that times out closes the connection; the test asserts on its
                        // side.
                        drop(serve(stream.unwrap(), &requests, answer.as_ref()));
                    });
                }
            }
        });
        Self {
            address,
            requests,
            closing,
            thread: Some(thread),
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, in order.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // The connection wakes the thread, which then stops.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(
    mut stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Reply,
) -> io::Result<()> {
    let request = parse(&stream)?;
    requests.lock().unwrap().push(request.clone());
    match answer(&request) {
        Reply::Whole(status, headers, body) => {
            write_head(&mut stream, status, &headers, body.len())?;
            stream.write_all(&body)?;
        }
        Reply::Cut(headers, body, length) => {
            write_head(&mut stream, 200, &headers, body.len())?;
            stream.write_all(&body[..length])?;
        }
        Reply::Stalled(headers, body, length) => {
            write_head(&mut stream, 200, &headers, body.len())?;
            stream.write_all(&body[..length])?;
            wait_for_the_client_to_leave(&mut stream);
        }
        Reply::Silence => wait_for_the_client_to_leave(&mut stream),
    }
    stream.shutdown(Shutdown::Both)
}

fn parse(stream: &TcpStream) -> io::Result<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut words = first.split(' ').map(str::to_owned);
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Request {
        method,
        path,
        headers,
    })
}

fn write_head(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&'static str, String)],
    length: usize,
) -> io::Result<()> {
    let mut head =
        format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())
}

fn wait_for_the_client_to_leave(stream: &mut TcpStream) {
    // Ends with the client's end of the connection, whether it is closed or broken.
    drop(stream.read(&mut [0]));
}
