//! Downloads a file and shows its progress: `download HOST:PORT NAME OUTPUT`.

#![expect(clippy::print_stderr, reason = "an example shows what happens")]

use std::env;
use std::error::Error;

use dtcore::{Client, Event};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().collect();
    let [_, server, name, output] = args.as_slice() else {
        return Err("usage: download HOST:PORT NAME OUTPUT".into());
    };

    let client = Client::new(server.parse()?)?;
    let mut transfer = client.download(name).to_path(output);
    if let Some(mut events) = transfer.take_events() {
        while let Some(event) = events.next().await {
            if let Event::Progress(progress) = event {
                eprintln!("{} of {:?} bytes verified", progress.verified, progress.size);
            }
        }
    }
    match transfer.await {
        Ok(report) => eprintln!("{} bytes in {:?}", report.bytes, report.elapsed),
        Err(error) if error.is_retryable() => eprintln!("retry later ({}): {error}", error.code()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
