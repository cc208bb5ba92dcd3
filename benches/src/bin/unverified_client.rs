//! A client that verifies nothing, which shows what verifying costs; `bench-loopback` runs it where it was built.
//!
//! `cargo build --release -p dt-benches --features unverified`, then `bench-unverified-client ADDRESS STREAMS FILE OUTPUT`,
//! with `DT_BENCH_UNVERIFIED=1` in its environment, so that it is not mistaken for the product.

use dt_benches::Failure;
use dtcore::{Client, ProtocolChoice, StreamCount};

fn main() -> Result<(), Failure> {
    if std::env::var_os("DT_BENCH_UNVERIFIED").is_none_or(|value| value != "1") {
        return Err(
            "this verifies nothing and is for benchmarks only; confirm with DT_BENCH_UNVERIFIED=1".into()
        );
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, streams, file, output] = arguments.as_slice() else {
        return Err("usage: bench-unverified-client ADDRESS STREAMS FILE OUTPUT".into());
    };
    let client = Client::builder(address.parse()?)
        .streams(StreamCount::new(streams.parse()?)?)
        .protocol(ProtocolChoice::V2)
        .build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(client.download(file).unverified().to_path(output))?;
    Ok(())
}
