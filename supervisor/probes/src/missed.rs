//! Runs of programs that the kernel left out, because the program was already running on that processor. No
//! program can count those; the kernel does, for each program.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::loaded_programs;

use crate::bpffs::Pins;
use crate::error::Error;
use crate::programs::{ALL, Need};

/// The sum over the programs that every agent needs.
pub(crate) fn missed(pins: &Pins, generation: u32) -> Result<u64, Error> {
    let mut ids = Vec::new();
    for spec in ALL.iter().filter(|spec| spec.need == Need::Required) {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Link {
            program: spec.name.to_owned(),
            action: "look at",
            source,
        };
        let link = PinnedLink::from_pin(pins.link(spec.name, generation)).map_err(|e| failed(e.into()))?;
        ids.push(FdLink::from(link).info().map_err(|e| failed(e.into()))?.program_id());
    }
    let mut sum = 0u64;
    for info in loaded_programs().filter_map(Result::ok).filter(|info| ids.contains(&info.id())) {
        let Ok(fd) = info.fd() else { continue };
        let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        sum = sum.saturating_add(parse(&fs::read_to_string(path).unwrap_or_default()));
    }
    Ok(sum)
}

fn parse(fdinfo: &str) -> u64 {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn fdinfo_of_a_program() {
        assert_eq!(parse("pos:\t0\nprog_type:\t26\nrecursion_misses:\t17\nverified_insns:\t4\n"), 17);
        assert_eq!(parse("pos:\t0\n"), 0);
    }
}
