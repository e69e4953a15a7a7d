//! Child processes that do not outlive this one, not even when it is killed.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::LazyLock;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::Child;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Starts the command in a process group of its own, so that a Ctrl-C in the terminal reaches only
/// us and we stop our children in order. When we die, the kernel sends it `on_parent_death`.
///
/// # Errors
///
/// When the program cannot be executed.
pub async fn spawn(mut command: Command, on_parent_death: Signal) -> io::Result<Child> {
    command.process_group(0);
    tie_to_parent(&mut command, on_parent_death);
    let (answer, spawned) = oneshot::channel();
    let request = Request {
        command,
        runtime: Handle::current(),
        answer,
    };
    let gone = || io::Error::other("the thread that starts processes is gone");
    SPAWNER.send(request).map_err(|_| gone())?;
    spawned.await.map_err(|_| gone())?
}

/// Asks the child to end with this signal and kills it if it has not done so in time.
pub async fn stop(child: &mut Child, signal: Signal, grace: Duration) -> io::Result<ExitStatus> {
    if let Some(pid) = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
    {
        // It may just have ended by itself; `wait` then says so.
        let _ = rustix::process::kill_process(pid, signal);
    }
    if let Ok(ended) = tokio::time::timeout(grace, child.wait()).await {
        return ended;
    }
    child.start_kill()?;
    child.wait().await
}

/// How a process ended, in words, a signal by its name.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(9)) => "was killed by SIGKILL (often: out of memory)".to_owned(),
        (None, Some(signal)) => format!("was killed by {}", signal_name(signal)),
        (None, None) => "ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

fn tie_to_parent(command: &mut Command, signal: Signal) {
    let parent = rustix::process::getpid();
    // The standard library runs this after it has changed the user, which would clear the setting.
    let tie = move || {
        rustix::process::set_parent_process_death_signal(Some(signal))?;
        // We may have died before the kernel knew that it should tell.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }
    };
    #[expect(
        unsafe_code,
        reason = "two plain system calls, safe between fork and exec"
    )]
    unsafe {
        command.pre_exec(tie);
    }
}

struct Request {
    command: Command,
    runtime: Handle,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// The kernel takes the end of the *thread* that started a process for the death of its parent, and
/// a runtime's threads come and go. So one thread, which never ends, starts them all.
static SPAWNER: LazyLock<mpsc::Sender<Request>> = LazyLock::new(|| {
    let (sender, requests) = mpsc::channel::<Request>();
    thread::Builder::new()
        .name("spawner".to_owned())
        .spawn(move || {
            for Request {
                command,
                runtime,
                answer,
            } in requests
            {
                let _entered = runtime.enter();
                let spawned = tokio::process::Command::from(command)
                    .kill_on_drop(true)
                    .spawn();
                let _ = answer.send(spawned);
            }
        })
        .expect("a process that can start children can start a thread");
    sender
});

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        command
    }

    #[tokio::test]
    async fn an_end_is_described() {
        let mut child = spawn(shell("exit 3"), Signal::KILL).await.unwrap();
        assert_eq!(
            describe(child.wait().await.unwrap()),
            "exited with status 3"
        );
        let mut child = spawn(shell("kill -9 $$"), Signal::KILL).await.unwrap();
        assert!(describe(child.wait().await.unwrap()).contains("SIGKILL"));
    }

    #[tokio::test]
    async fn a_child_that_ignores_the_signal_is_killed() {
        let mut child = spawn(shell("trap '' TERM; exec sleep 60"), Signal::KILL)
            .await
            .unwrap();
        let status = stop(&mut child, Signal::TERM, Duration::from_millis(200))
            .await
            .unwrap();
        assert_ne!(status.code(), Some(0));
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        assert!(
            spawn(Command::new("/no/such/program"), Signal::KILL)
                .await
                .is_err()
        );
    }
}
