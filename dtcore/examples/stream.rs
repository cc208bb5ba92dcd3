//! Writes a file to standard output as it arrives: `stream HOST:PORT NAME`.

#![expect(clippy::print_stderr, reason = "an example shows what happens")]

use std::env;
use std::error::Error;

use dtcore::Client;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().collect();
    let [_, server, name] = args.as_slice() else { return Err("usage: stream HOST:PORT NAME".into()) };

    let client = Client::new(server.parse()?)?;
    let file = client.stat(name).await?;
    eprintln!("{} bytes", file.size);

    let mut stream = client.download(name).into_stream();
    let mut output = tokio::io::stdout();
    while let Some(piece) = stream.next().await {
        // An error is the last item. Without one, everything that was written is verified.
        output.write_all(&piece?).await?;
    }
    output.flush().await?;
    Ok(())
}
