//! Serves a directory until Ctrl-C, and prints what happens: `serve DIRECTORY [PORT]`.

#![expect(clippy::print_stderr, reason = "an example shows what happens")]

use std::env;
use std::error::Error;

use dtcore::{Server, ServerOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let directory = args.next().ok_or("usage: serve DIRECTORY [PORT]")?;
    let port = args.next().map_or(Ok(9000), |port| port.parse())?;

    let server = Server::bind(ServerOptions::new(directory).port(port)).await?;
    eprintln!("serving {} on {}", server.root().display(), server.local_addr());
    let mut events = server.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            eprintln!("{event:?}");
        }
    });
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("cannot wait for Ctrl-C: {error}");
        }
    };
    server.run(interrupted).await;
    Ok(())
}
