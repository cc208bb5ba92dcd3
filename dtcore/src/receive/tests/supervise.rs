//! How long a transfer waits for data.

use std::time::Duration;

use super::{ReadyMade, Scene, transfer};
use crate::receive::supervise::check_streams;
use crate::receive::transfer::ActiveTransfer;

const TICK: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(10);

/// Transfers that took longer to prepare than data may be missing, with none of their blocks there and with all.
fn prepared_late() -> [ActiveTransfer<ReadyMade>; 2] {
    [false, true].map(|is_there| {
        let scene = Scene { took: LIMIT * 2, is_there, stall_timeout: LIMIT, ..Scene::default() };
        transfer(scene)
    })
}

/// How long it is from `now` until the transfer times out.
fn patience(transfer: &ActiveTransfer<ReadyMade>, now: Duration, checked: &mut Duration) -> Duration {
    let mut waited = Duration::ZERO;
    while check_streams(transfer, checked, now + waited).is_ok() {
        waited += TICK;
    }
    waited
}

#[test]
fn time_of_preparation_does_not_count() {
    for transfer in prepared_late() {
        let now = transfer.now();
        assert!(now >= LIMIT * 2);
        assert!((LIMIT / 2..=LIMIT).contains(&patience(&transfer, now, &mut now.clone())));
    }
}

#[test]
fn time_in_which_the_program_was_stopped_does_not_count() {
    for transfer in prepared_late() {
        let now = transfer.now();
        let mut checked = now;
        check_streams(&transfer, &mut checked, now).unwrap();
        assert_eq!(patience(&transfer, now + Duration::from_secs(600), &mut checked), LIMIT);
    }
}
