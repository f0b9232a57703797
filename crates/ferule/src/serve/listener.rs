//! Connections: limits their number and their slowness, and ends them in order.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the head of a request. An idle connection is closed after the same time.
    head: Duration,
    /// For the body of a request.
    pub body: Duration,
}

const PATIENCE: Patience = Patience { head: Duration::from_secs(10), body: Duration::from_secs(20) };

/// While more than half of the places are taken, so that slow clients cannot keep the others out.
const LESS_PATIENCE: Patience = Patience { head: Duration::from_secs(2), body: Duration::from_secs(5) };

/// The longest head of a request, in bytes.
const HEAD_BYTES: usize = 64 << 10;

/// The longest time in which a client may read nothing of what is sent to it.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// Serves until `end` completes, then waits for running requests, at most for `drain`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    drain: Duration,
    end: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(connections));
    let graceful = GracefulShutdown::new();
    tokio::pin!(end);
    loop {
        // A place is taken before a connection is accepted. Without a free place, clients wait in the system's queue.
        let next = async {
            let place = places.clone().acquire_owned().await.expect("nobody closes it");
            (listener.accept().await, place)
        };
        let ((stream, peer), place) = tokio::select! {
            (accepted, place) = next => match accepted {
                Ok(accepted) => (accepted, place),
                Err(error) => {
                    // Most likely too many files are open. Their number falls when connections end.
                    eprintln!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut end => break,
        };
        let patience = if places.available_permits() < connections / 2 { LESS_PATIENCE } else { PATIENCE };
        // Pieces of a stream are small and should be sent at once.
        let _ = stream.set_nodelay(true);
        let routes = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(patience);
            routes.call(request)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(HEAD_BYTES).half_close(false);
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(Impatient::new(stream)), service));
        tokio::spawn(async move {
            // It does not matter how a client ends its connection.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        eprintln!("some requests did not end within {} s", drain.as_secs());
    }
}

/// A connection that fails if its client has read nothing for [`WRITE_TIME`]. Otherwise it would keep its place, and
/// its answer in memory, for ever.
struct Impatient {
    stream: TcpStream,
    /// The timer, which runs while something cannot be written.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream) -> Impatient {
        Impatient { stream, patience: None }
    }

    fn unless_stalled<T>(&mut self, context: &mut Context, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.patience = None;
            return write;
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIME)));
        patience.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_stalled(context, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        parts: &[IoSlice],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.unless_stalled(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
