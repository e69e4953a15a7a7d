//! A way to a server that can be shut: what an outage of the network looks like from one side.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Passes connections on while it is open.
pub struct Gate {
    port: u16,
    to: u16,
    passing: Option<JoinHandle<()>>,
}

impl Gate {
    pub(crate) fn new(port: u16, to: u16) -> Self {
        Self {
            port,
            to,
            passing: None,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Lets connections through from now on.
    pub async fn open(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.passing = Some(tokio::spawn(pass(listener, self.to)));
    }

    /// Cuts every connection and refuses new ones.
    pub async fn shut(&mut self) {
        if let Some(passing) = self.passing.take() {
            passing.abort();
            let _ = passing.await;
        }
    }
}

async fn pass(listener: TcpListener, to: u16) {
    // Connections end with the set, which ends with this task.
    let mut connections = JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await {
                let _ = copy_bidirectional(&mut from, &mut server).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
