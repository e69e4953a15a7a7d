//! How much memory this process holds, has held and may still take, as Linux tells; elsewhere nothing is known.

use std::fs;

/// Memory that a run may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// What the process holds already; `None` where the system does not tell.
    pub held_bytes: Option<u64>,
    /// What it may take on top; `None` where nobody knows.
    pub free_bytes: Option<u64>,
    /// What it was told to hold at most, even if it holds more already.
    pub max_bytes: Option<u64>,
}

impl Room {
    /// What the machine, its control group and `max_bytes` for the whole process leave now.
    pub fn now(max_bytes: Option<u64>) -> Self {
        let held_bytes = held_bytes();
        let own = max_bytes.map(|max| max.saturating_sub(held_bytes.unwrap_or(0)));
        let free = [machine_free_bytes(), group_free_bytes(), own];
        Self {
            held_bytes,
            free_bytes: free.into_iter().flatten().min(),
            max_bytes,
        }
    }

    /// What the process may hold in all.
    pub fn limit_bytes(&self) -> Option<u64> {
        let there = self
            .free_bytes
            .map(|free| free + self.held_bytes.unwrap_or(0));
        [there, self.max_bytes].into_iter().flatten().min()
    }
}

/// What the machine has, or the control group that bounds us: what a run could take if nothing else ran.
pub fn machine_bytes() -> Option<u64> {
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    let machine = field(&read("/proc/meminfo")?, "MemTotal:");
    [group, machine].into_iter().flatten().min()
}

/// What this process holds.
pub fn held_bytes() -> Option<u64> {
    field(&read("/proc/self/status")?, "VmRSS:")
}

/// The most that this process ever held, or has held since [`forget_peak`].
pub fn peak_bytes() -> Option<u64> {
    field(&read("/proc/self/status")?, "VmHWM:")
}

/// Counts the peak anew from what is held now, where the system can: a process may run one job after another.
pub fn forget_peak() {
    // `man 5 proc`: 5 resets the peak. Where it does not, the peak stays that of the process.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn machine_free_bytes() -> Option<u64> {
    field(&read("/proc/meminfo")?, "MemAvailable:")
}

/// What the control group's limit leaves, in the first or the second version's layout. A container sees its own group at
/// the root.
fn group_free_bytes() -> Option<u64> {
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let second = || {
        let limit = number("/sys/fs/cgroup/memory.max")?;
        left(
            limit,
            number("/sys/fs/cgroup/memory.current")?,
            "/sys/fs/cgroup/memory.stat",
        )
    };
    let first = || {
        let limit = number("/sys/fs/cgroup/memory/memory.limit_in_bytes")?;
        left(
            limit,
            number("/sys/fs/cgroup/memory/memory.usage_in_bytes")?,
            "/sys/fs/cgroup/memory/memory.stat",
        )
    };
    second().or_else(first)
}

/// Of the files that the system keeps in memory for the group, those it has not looked at for long go when room is needed.
fn left(limit: u64, used: u64, stat: &str) -> Option<u64> {
    let stat = read(stat)?;
    let inactive = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
    let used = used.saturating_sub(inactive.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// A line `name   123 kB` in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_in_bytes() {
        let text = "VmPeak:\t  100 kB\nVmRSS:\t    7 kB\n";
        assert_eq!(field(text, "VmRSS:"), Some(7 * 1024));
        assert_eq!(field(text, "VmHWM:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_bound_of_our_own_leaves_no_more_than_itself() {
        let held = held_bytes().unwrap();
        let room = Room::now(Some(held + (1 << 20)));
        assert!(room.free_bytes.unwrap() <= 2 << 20, "{room:?}");
        assert_eq!(Room::now(Some(1)).free_bytes, Some(0));
        assert_eq!(Room::now(Some(1)).limit_bytes(), Some(1));
        assert!(peak_bytes().unwrap() >= held / 2);
        assert!(machine_bytes().unwrap() > held);
    }
}
