//! What the machine says of the process: the `process_*` figures that every Prometheus client shows, read at each scrape.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// In `/proc` a second has so many ticks, on every machine that Linux runs on.
const TICKS: f64 = 100.0;

/// Reads `/proc/self`. What can't be read is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut show = |name: &str, help: &str, value: Option<f64>, counts: bool| {
            let Some(value) = value else { return Ok(()) };
            let (counter, gauge) = (ConstCounter::new(value), ConstGauge::new(value));
            let metric: &dyn EncodeMetric = if counts { &counter } else { &gauge };
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let stat = Stat::read();
        let of_stat = |pick: fn(&Stat) -> f64| stat.as_ref().map(pick);
        show("process_cpu_seconds", "Processor time spent, in user and in system mode.", of_stat(|s| s.cpu), true)?;
        show("process_resident_memory_bytes", "Memory that is really there.", status("VmRSS:"), false)?;
        show(
            "process_virtual_memory_bytes",
            "Memory that is only spoken for, too.",
            of_stat(|s| s.virtual_bytes),
            false,
        )?;
        show("process_threads", "Threads of the operating system.", of_stat(|s| s.threads), false)?;
        show("process_open_fds", "Open files and sockets.", open_fds(), false)?;
        show("process_max_fds", "How many files and sockets may be open.", max_fds(), false)?;
        let started = stat.as_ref().and_then(|stat| Some(boot()? + stat.since_boot));
        show("process_start_time_seconds", "When the process began, in seconds since 1970.", started, false)
    }
}

/// What `/proc/self/stat` tells, in seconds and bytes.
struct Stat {
    cpu: f64,
    threads: f64,
    since_boot: f64,
    virtual_bytes: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// The name of the program comes second, in parentheses, and may hold any character; behind it, numbers only.
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.rsplit_once(')')?;
        let field = |number: usize| fields.split_whitespace().nth(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu: (field(14)? + field(15)?) / TICKS,
            threads: field(20)?,
            since_boot: field(22)? / TICKS,
            virtual_bytes: field(23)?,
        })
    }
}

/// A line of `/proc/self/status` that counts kilobytes, in bytes.
fn status(name: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

/// Newer kernels tell the number as the folder's size; where they don't, its entries are counted.
fn open_fds() -> Option<f64> {
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    let count = match usize::try_from(told) {
        Ok(told @ 1..) => told,
        // One entry is that of the folder that is being read.
        _ => fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1),
    };
    u32::try_from(count).ok().map(f64::from)
}

fn max_fds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        soft => soft.parse().ok(),
    }
}

/// When the machine began, in seconds since 1970.
fn boot() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        let line =
            "7 (a) b) (c) S 1 7 7 0 -1 4194304 96 0 0 0 250 50 0 0 20 0 3 0 1234 4096000 500 18446744073709551615";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.cpu, stat.threads, stat.since_boot, stat.virtual_bytes), (3.0, 3.0, 12.34, 4_096_000.0));
        assert!(Stat::parse("7 (short) S 1").is_none() && Stat::parse("").is_none());
    }

    #[test]
    fn this_very_process_is_read() {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let stat = Stat::read().unwrap();
        assert!(stat.threads >= 1.0 && stat.virtual_bytes > 1e6);
        assert!(status("VmRSS:").unwrap() > 1e5);
        assert!((3.0..=max_fds().unwrap()).contains(&open_fds().unwrap()));
        let started = boot().unwrap() + stat.since_boot;
        assert!((0.0..3600.0).contains(&(now - started)), "{started} of {now}");
    }
}
