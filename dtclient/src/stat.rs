//! `dtclient stat`.

use std::process::ExitCode;

use dtcli::{StandardOutput, one_line};
use dtcore::RemoteFile;
use serde_json::json;

use crate::args::StatArgs;
use crate::dates::{date, seconds};
use crate::exit::{self, Failure};
use crate::prepare;
use crate::units::size;

/// Prints what a server knows of a file.
pub(crate) fn run(args: &StatArgs) -> ExitCode {
    match found(args).and_then(|file| print(args, &file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => exit::fail(&failure),
    }
}

fn found(args: &StatArgs) -> Result<RemoteFile, Failure> {
    let runtime = prepare()?;
    let client = args.common.client(args.place.server.clone(), |builder| builder)?;
    Ok(runtime.block_on(client.stat(&args.place.path))?)
}

fn print(args: &StatArgs, file: &RemoteFile) -> Result<(), Failure> {
    use std::io::Write;
    let modified = seconds(file.modified);
    let [blake3, md5] =
        [file.blake3.map(|digest| digest.to_string()), file.md5.map(|digest| digest.to_string())];
    let text = if args.common.json {
        let path = args.place.path.to_string_lossy();
        format!(
            "{}\n",
            json!({"v": 1, "path": path, "size": file.size, "modified": modified, "blake3": blake3, "md5": md5})
        )
    } else {
        let mut lines = vec![
            one_line(&args.place.to_string()),
            format!("  size      {}", size(file.size)),
            format!("  modified  {}", date(file.modified)),
        ];
        for (name, digest) in [("blake3", blake3), ("md5", md5)] {
            lines.extend(digest.map(|digest| format!("  {name:<9} {digest}")));
        }
        lines.join("\n") + "\n"
    };
    let mut out = StandardOutput::open().map_err(Failure::StandardOutput)?;
    out.write_all(text.as_bytes()).map_err(Failure::StandardOutput)
}
