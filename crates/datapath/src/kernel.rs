//! What the kernel that runs here can do.

use std::fs;

use crate::xdp::XdpError;

/// Where the kernel describes its types.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Refuses kernels that are too old for the programs of the XDP hook.
pub(crate) fn runs_at_xdp() -> Result<(), XdpError> {
    check(release(), (6, 1), |found| XdpError::OldKernel { found })
}

/// Refuses kernels that are too old for those of the tc hook: TCX came with 6.6, and what the verifier asks of the programs, with 6.12.
pub fn runs_at_tc() -> Result<(), XdpError> {
    check(release(), (6, 12), |found| XdpError::OldForTc { found })
}

/// Refuses kernels that are too old for the program at egress, for the same reasons.
pub(crate) fn runs_at_egress() -> Result<(), XdpError> {
    check(release(), (6, 12), |found| XdpError::OldForEgress { found })
}

/// Can the kernel's routes be asked what they say of a packet with a mark (Linux 6.10)? Distributions bring such things to older
/// kernels, so it is not the version that tells.
pub fn routes_take_marks() -> bool {
    const FLAG: &[u8] = b"BPF_FIB_LOOKUP_MARK\0";
    fs::read(BTF).is_ok_and(|types| types.windows(FLAG.len()).any(|bytes| bytes == FLAG))
}

fn release() -> String {
    nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

fn check(
    release: String,
    least: (u32, u32),
    refuse: impl FnOnce(String) -> XdpError,
) -> Result<(), XdpError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < least { Err(refuse(release)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_xdp(release: &str) -> Result<(), XdpError> {
        check(release.to_owned(), (6, 1), |found| XdpError::OldKernel { found })
    }

    #[test]
    fn kernels_that_are_too_old_are_named_with_what_is_needed() {
        for enough in ["6.1.0-18-amd64", "6.1.192", "6.11.9", "6.12.117+deb12-amd64", "7.0-rc1"] {
            assert!(at_xdp(enough).is_ok(), "{enough}");
        }
        for old in ["6.0.19", "5.15.0", "unheard-of", ""] {
            let why = at_xdp(old).expect_err(old).to_string();
            assert!(why.contains(old) && why.contains("Linux 6.1 or"), "{why}");
        }
    }

    #[test]
    fn the_tc_hook_asks_for_more_and_says_what_to_do_instead() {
        let check = |release: &str| check(release.to_owned(), (6, 12), |found| XdpError::OldForTc { found });
        assert!(check("6.12.0").is_ok());
        let why = check("6.1.0-18-amd64").expect_err("6.1").to_string();
        assert!(
            why.contains("6.1.0-18") && why.contains("Linux 6.12 or") && why.contains("--hook xdp"),
            "{why}"
        );
    }
}
