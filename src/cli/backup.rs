//! `oncegate backup`: a copy of all that the gate knows, while it runs.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

use super::desk::{Desk, Where, tell};
use crate::store::embedded::backup::Copy;

/// What `backup` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  oncegate backup /var/backups/oncegate-$(date +%F)

It asks the gate that runs, on the same machine, and makes a folder of what that knows at this moment: payments, whatever is on
its way, what waits for a person, history. The folder takes its name when it is whole and has been read once more; what was cut
off is left as DIR.unfinished, and the next try removes it. It holds whole requests, so keep it as you keep the store.
To restore: stop the gate, put the folder in the place of `store.path` (owned by the gate's user), start the gate. What was
settled after the backup is forgotten then, and its redeliveries go to the app again.
Exit codes: 0 if the copy is whole, 1 if not, 2 on wrong usage.")]
pub struct Args {
    /// The folder to make; it must not be there yet, or be empty
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub folder: PathBuf,
    /// Which gate is asked
    #[command(flatten)]
    pub place: Where,
}

/// Makes it.
///
/// # Errors
///
/// When the gate can't be asked or refuses, or the copy can't be written or is not whole.
pub fn run(args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let desk = Desk::find(&args.place, config)?;
    let folder = args.folder.display();
    let mut copy = None;
    desk.take("/backup", |piece| {
        let copy = match &mut copy {
            Some(copy) => copy,
            // Only when the gate has begun to speak.
            None => copy.insert(Copy::called(&args.folder)?),
        };
        Ok(copy.take(piece)?)
    })?;
    let copied = copy.context("the gate said nothing")?.finish().context("the backup is not whole")?;
    tell(&format!(
        "{folder} holds all that the gate knew: {} records, up to group {}.\n",
        copied.records, copied.group
    ))?;
    Ok(ExitCode::SUCCESS)
}
