//! The transfers that commands start.

use std::path::Path;

use dtcli::StandardOutput;
use dtcore::ProtocolChoice;

use crate::args::{Common, Fetch, Put, Verbosity};
use crate::exit::Failure;
use crate::progress::View;
use crate::running::{Done, Running};

/// A transfer that can be started.
pub(crate) trait Start {
    fn common(&self) -> &Common;

    /// What the display says about it.
    fn view(&self) -> View;

    /// Starts it.
    fn start(&self) -> Result<Running, Failure>;
}

impl Start for Fetch {
    fn common(&self) -> &Common {
        &self.common
    }

    fn view(&self) -> View {
        View {
            name: self.file.to_string_lossy().into_owned(),
            server: self.server.to_string(),
            streams: self.streams,
            is_upload: false,
        }
    }

    fn start(&self) -> Result<Running, Failure> {
        if self.is_tree() {
            return self.start_tree();
        }
        // The others are names of the same descriptor; opened by name, it would be written from its beginning.
        let standard_output_names = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
        let output = self.target().ok_or(Failure::NoName)?;
        let is_standard_output = standard_output_names.iter().any(|name| output == Path::new(name));
        if is_standard_output && self.common.json {
            return Err(Failure::JsonAndOutput);
        }
        let options = &self.options;
        let client = self.common.client(self.server.clone(), |builder| {
            builder.streams(self.streams).protocol(options.protocol)
        })?;
        let download = client.download(&self.file).engine(options.engine).md5(options.md5);
        let download =
            download.overwrite(!options.no_clobber).resume(!options.file.no_resume).fsync(options.file.sync);
        let download = download
            .preserve_times(!options.file.no_preserve)
            .preserve_mode(options.file.preserve_mode)
            .growth(!options.file.no_growth);
        let download = match options.checksum {
            Some(checksum) => download.checksum(checksum),
            None => download,
        };
        Ok(if is_standard_output {
            Running::new(
                download.to_writer(StandardOutput::open().map_err(Failure::StandardOutput)?),
                |(report, _)| Done::Fetched(report),
            )
        } else {
            Running::new(download.to_path(output), Done::Fetched)
        })
    }
}

impl Fetch {
    fn start_tree(&self) -> Result<Running, Failure> {
        let options = &self.options;
        if options.checksum.is_some() || options.protocol == ProtocolChoice::V1 {
            return Err(Failure::NotOfTree);
        }
        let client = self.common.client(self.server.clone(), |builder| builder.streams(self.streams))?;
        let tree = client
            .download_tree(&self.file)
            .dry_run(options.dry_run)
            .overwrite(!options.no_clobber)
            .resume(!options.file.no_resume)
            .fsync(options.file.sync)
            .preserve_times(!options.file.no_preserve)
            .preserve_mode(options.file.preserve_mode);
        Ok(Running::new(tree.to_path(self.tree_target()), Done::Tree))
    }
}

impl Start for Put {
    fn common(&self) -> &Common {
        &self.common
    }

    fn view(&self) -> View {
        View {
            name: self.name.to_string_lossy().into_owned(),
            server: self.server.to_string(),
            streams: self.streams,
            is_upload: true,
        }
    }

    fn start(&self) -> Result<Running, Failure> {
        let options = &self.options;
        if self.local.is_none() && self.common.verbosity() > Verbosity::Quiet {
            dtcli::say("reading standard input to its end first; this upload cannot be resumed");
        }
        let client = self.common.client(self.server.clone(), |builder| builder.streams(self.streams))?;
        let upload = client
            .upload(&self.name)
            .overwrite(options.overwrite)
            .resume(!options.file.no_resume)
            .fsync(options.file.sync)
            .preserve_times(!options.file.no_preserve)
            .preserve_mode(options.file.preserve_mode)
            .growth(!options.file.no_growth);
        Ok(Running::new(
            match &self.local {
                Some(local) => upload.from_path(local),
                None => upload.from_reader(std::io::stdin()),
            },
            Done::Sent,
        ))
    }
}
