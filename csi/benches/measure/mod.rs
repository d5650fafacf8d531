//! How long mount(8) takes, seen by its caller in a room: the bench copies itself there and is its own caller.
//!
//! Runs in the bench's process, as root, and as a process of the room.

use crate::node::Place;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;
use testbed::machine::Room;

/// Where the copy is, in each room that shows /run/hostmount.
const COPY: &str = "/run/hostmount/measure";
/// The word that makes it measure.
pub(crate) const WORD: &str = "measure";

/// Puts the copy there.
pub(crate) fn install(container: &Place) {
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    container.visit(|| {
        fs::write(COPY, program).unwrap();
        fs::set_permissions(COPY, fs::Permissions::from_mode(0o755)).unwrap();
    });
}

/// Mounts in `room` with the program `mount` and these arguments, the last of which is the target, and unmounts: how many
/// milliseconds each took.
pub(crate) fn in_room(room: &Place, mount: &str, arguments: &[&str]) -> [f64; 2] {
    let mut command = Room::command(COPY);
    command.args([WORD, mount]).args(arguments);
    let output = room.0.output(command).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let times = String::from_utf8_lossy(&output.stdout);
    let mut times = times.split_whitespace().map(|time| time.parse::<f64>().unwrap());
    [times.next().unwrap(), times.next().unwrap()]
}

/// What the copy does with the arguments that follow [`WORD`]: mounts, until the filesystem answers, and unmounts; prints how many
/// milliseconds each took.
pub(crate) fn measure(arguments: &[String]) {
    let ([mount, arguments @ ..], target) = (arguments, arguments.last().unwrap()) else { panic!("no program") };
    // Some helpers go to the background first and ask their server then. mount(8) does not wait for that, ours does.
    let mounted = timed(Command::new(mount).args(arguments)) + milliseconds(|| fs::metadata(target).map(drop).unwrap());
    let unmounted = timed(Command::new("/usr/bin/umount").arg(target));
    println!("{mounted} {unmounted}");
}

fn timed(command: &mut Command) -> f64 {
    let mut output = None;
    let took = milliseconds(|| output = Some(command.output().expect("the program starts")));
    let output = output.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    took
}

/// How long `work` takes.
pub(crate) fn milliseconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64() * 1e3
}

/// The one in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
