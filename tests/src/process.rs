//! Processes by their place in the system.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The binary that was built together with these tests.
pub fn attune() -> Command {
    let tests = std::env::current_exe().unwrap();
    let path: PathBuf = tests.ancestors().nth(2).unwrap().join("attune");
    assert!(
        path.is_file(),
        "{} is missing; build the whole workspace first",
        path.display()
    );
    Command::new(path)
}

/// Starts a process that writes to the end of `log`.
pub(crate) fn spawn(mut command: Command, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Ends a process of ours with `signal` and waits for it.
pub(crate) fn end(mut process: Child, signal: Signal) {
    send(&process, signal);
    // One that a test stopped would never see it.
    send(&process, Signal::CONT);
    process.wait().unwrap();
}

/// Sends a signal and waits for nothing.
pub(crate) fn send(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

/// Kills the child of `parent` whose arguments `is_it`, without warning.
pub(crate) fn kill_child(parent: u32, name: &str, is_it: impl Fn(&[String]) -> bool) {
    let pid = children_of(parent)
        .into_iter()
        .find(|pid| is_it(&arguments_of(*pid)))
        .unwrap_or_else(|| panic!("no {name} runs"));
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

fn children_of(parent: u32) -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The name in parentheses may hold spaces; the parent is the second field after it.
            let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            fields.split_whitespace().nth(1) == Some(parent.to_string().as_str())
        })
        .collect()
}

fn arguments_of(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}
