//! The Debian package: staged below the target directory, packed by `dpkg-deb`, and tried in a throw-away copy of this system.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{capture, command, run};
use crate::{apt, build, place};

/// What packing needs: `strip` and `objdump`, `gzip`, `dpkg-deb`.
const PROGRAMS: [&str; 3] = ["binutils", "gzip", "dpkg"];
/// What has a page of its own.
const PAGES: [&str; 2] = ["xlvs", "ipvsadm"];
/// Where completions go, by shell: directory, and what is before and after the program's name. The original ipvsadm brings its own.
const COMPLETIONS: [(&str, &str, &str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions", "", ""),
    ("zsh", "usr/share/zsh/vendor-completions", "_", ""),
    ("fish", "usr/share/fish/vendor_completions.d", "", ".fish"),
];

/// Builds everything and packs it.
pub fn package() -> Result<PathBuf> {
    let (binary, _objects) = build::build()?;
    pack(&binary)
}

/// Packs a binary. Returns where the package is.
pub fn pack(binary: &Path) -> Result<PathBuf> {
    apt::ensure_installed(&PROGRAMS, "packing")?;
    println!("==> packing");
    let architecture = capture(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned();
    let version = env!("CARGO_PKG_VERSION");
    let tree = Tree::empty(place::target().join("package/tree"))?;
    stage(&tree, binary)?;
    let control = control(version, &architecture, &libc_needed(binary)?, tree.kilobytes()?);
    tree.text("DEBIAN/control", &control)?;
    for script in ["postinst", "prerm", "postrm"] {
        tree.copy(&place::root().join("dist/debian").join(script), &format!("DEBIAN/{script}"), 0o755)?;
    }
    let package = place::target().join(format!("package/xlvs_{version}_{architecture}.deb"));
    let mut deb = Command::new("dpkg-deb");
    run(deb.args(["--root-owner-group", "--build"]).arg(&tree.root).arg(&package))?;
    println!("    {}", package.display());
    Ok(package)
}

fn stage(tree: &Tree, binary: &Path) -> Result<()> {
    let root = place::root();
    tree.copy(binary, "usr/sbin/xlvs", 0o755)?;
    run(Command::new("strip").arg(tree.at("usr/sbin/xlvs")))?;
    for unit in ["xlvs.service", "xlvs.socket"] {
        tree.copy(&root.join("dist").join(unit), &format!("usr/lib/systemd/system/{unit}"), 0o644)?;
    }
    tree.directory("etc/xlvs")?;
    tree.copy(&root.join("docs/xlvs.toml.example"), "usr/share/doc/xlvs/examples/xlvs.toml", 0o644)?;
    for document in ["README.md", "docs/configuration.md", "docs/differences.md", "docs/real-servers.md"] {
        let name = document.rsplit('/').next().unwrap_or(document);
        tree.copy(&root.join(document), &format!("usr/share/doc/xlvs/{name}"), 0o644)?;
    }
    let licence = fs::read_to_string(root.join("LICENSE-MIT"))?;
    let copyright = format!(
        "Either the Apache License, version 2.0 (/usr/share/common-licenses/Apache-2.0), or this one.\n\n{licence}"
    );
    tree.text("usr/share/doc/xlvs/copyright", &copyright)?;
    for page in PAGES {
        let text = capture(command(binary).args(["man", page]))?;
        // ipvsadm's own page belongs to alternatives, like the command.
        let place = if page == "ipvsadm" { "usr/share/doc/xlvs" } else { "usr/share/man/man8" };
        tree.compressed(&format!("{place}/{page}.8.gz"), &text)?;
    }
    for (shell, directory, before, after) in COMPLETIONS {
        let text = capture(command(binary).args(["completions", shell]))?;
        tree.text(&format!("{directory}/{before}xlvs{after}"), &text)?;
    }
    Ok(())
}

fn control(version: &str, architecture: &str, libc: &str, kilobytes: u64) -> String {
    format!(
        "Package: xlvs\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: the xlvs authors <xlvs@localhost>\n\
         Installed-Size: {kilobytes}\n\
         Depends: libc6 (>= {libc}), libgcc-s1\n\
         Recommends: iproute2\n\
         Section: net\n\
         Priority: optional\n\
         Description: Linux Virtual Server director on XDP\n\
         \x20Layer-4 load balancing with the semantics of the kernel's IPVS and the command\n\
         \x20line of ipvsadm, by NAT, direct routing and tunnels, for IPv4 and IPv6, in the\n\
         \x20receive path of the network driver. Needs Linux 6.1 or later.\n"
    )
}

/// The version of the C library whose symbols the binary needs.
fn libc_needed(binary: &Path) -> Result<String> {
    let symbols = capture(Command::new("objdump").arg("-T").arg(binary))?;
    newest_libc(&symbols).with_context(|| format!("{} needs no C library", binary.display()))
}

fn newest_libc(symbols: &str) -> Option<String> {
    let words = symbols.split(|c: char| c.is_whitespace() || "()".contains(c));
    let versions = words.filter_map(|word| word.strip_prefix("GLIBC_"));
    let numbers = versions.filter_map(|version| {
        let (major, minor) = version.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.split('.').next()?.parse::<u32>().ok()?))
    });
    numbers.max().map(|(major, minor)| format!("{major}.{minor}"))
}

/// What the package puts into a system.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn empty(root: PathBuf) -> Result<Tree> {
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
        }
        fs::create_dir_all(root.join("DEBIAN")).with_context(|| format!("make {}", root.display()))?;
        Ok(Tree { root })
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn directory(&self, path: &str) -> Result<()> {
        fs::create_dir_all(self.at(path)).with_context(|| format!("make {path}"))
    }

    fn parent(&self, path: &str) -> Result<PathBuf> {
        let at = self.at(path);
        if let Some(parent) = at.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        Ok(at)
    }

    fn copy(&self, from: &Path, path: &str, mode: u32) -> Result<()> {
        let to = self.parent(path)?;
        fs::copy(from, &to).with_context(|| format!("copy {}", from.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))
            .with_context(|| format!("set the mode of {path}"))
    }

    fn text(&self, path: &str, text: &str) -> Result<()> {
        let at = self.parent(path)?;
        fs::write(&at, text).with_context(|| format!("write {path}"))
    }

    /// As `gzip -9n` does it: policy wants pages like that, and no time in them.
    fn compressed(&self, path: &str, text: &str) -> Result<()> {
        let at = self.parent(path)?;
        let file = fs::File::create(&at).with_context(|| format!("write {path}"))?;
        let mut gzip = Command::new("gzip").args(["-9", "-n"]).stdin(Stdio::piped()).stdout(file).spawn()?;
        gzip.stdin.take().context("gzip takes no input")?.write_all(text.as_bytes())?;
        ensure!(gzip.wait()?.success(), "gzip failed on {path}");
        Ok(())
    }

    fn kilobytes(&self) -> Result<u64> {
        let said = capture(Command::new("du").args(["-sk", "--apparent-size"]).arg(&self.root))?;
        said.split_whitespace().next().and_then(|word| word.parse().ok()).context("du says nothing")
    }
}

/// What is done in the throw-away copy, and must succeed line by line.
const TRIAL: &str = r"
set -eux
dpkg -i /xlvs.deb
test $(xlvs --version | wc -w) = 2
ipvsadm --version | grep -q ipvsadm
test $(readlink -f /usr/sbin/ipvsadm-save) = /usr/sbin/xlvs
xlvs check-config /usr/share/doc/xlvs/examples/xlvs.toml
zcat /usr/share/man/man8/xlvs.8.gz | grep -q '^.TH'
zcat /usr/share/man/man8/ipvsadm.8.gz | grep -q '^.TH'
bash -n /usr/share/bash-completion/completions/xlvs
systemd-analyze --man=no verify /usr/lib/systemd/system/xlvs.service /usr/lib/systemd/system/xlvs.socket
# Once more, as an upgrade does.
dpkg -i /xlvs.deb
mkdir -p /var/lib/xlvs/revisions /etc/xlvs && touch /etc/xlvs/xlvs.toml
dpkg -r xlvs
test ! -e /usr/sbin/xlvs -a ! -L /usr/sbin/ipvsadm -a -d /var/lib/xlvs -a -f /etc/xlvs/xlvs.toml
dpkg -P xlvs
test ! -e /var/lib/xlvs -a -f /etc/xlvs/xlvs.toml
# Beside the original, which stays.
printf '#!/bin/sh\necho the original\n' > /usr/sbin/ipvsadm && chmod 755 /usr/sbin/ipvsadm
dpkg -i /xlvs.deb
test $(ipvsadm | wc -w) = 2
dpkg -P xlvs
test $(ipvsadm | wc -w) = 2
";

/// Installs, upgrades, removes and purges the package in a copy of this system that lives in memory and goes with the processes in it.
pub fn try_out(package: &Path) -> Result<()> {
    println!("==> installing the package in a copy of this system");
    let place = place::target().join("package/trial");
    fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
    let script = format!(
        "set -e
         mount -t tmpfs none {place}
         mkdir {place}/upper {place}/work {place}/system
         mount -t overlay -o lowerdir=/,upperdir={place}/upper,workdir={place}/work overlay {place}/system
         for own in proc dev; do mount --rbind /$own {place}/system/$own; done
         # Neither this system's systemd nor its director is spoken to.
         mount -t tmpfs none {place}/system/run
         mount -t tmpfs none {place}/system/sys
         cp {package} {place}/system/xlvs.deb
         exec chroot {place}/system sh -c \"$TRIAL\"",
        place = quoted(&place)?,
        package = quoted(package)?,
    );
    let mut copy = Command::new("unshare");
    run(copy.args(["--mount", "--net", "--", "sh", "-c", &script]).env("TRIAL", TRIAL))
}

/// A path as a word of a shell script.
fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.contains('\''));
    match text {
        Some(text) => Ok(format!("'{text}'")),
        None => bail!("{} has a name that a shell does not take; build elsewhere", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbols_say_which_c_library() {
        let symbols = "0000 DF *UND* 0000 (GLIBC_2.2.5) write\n0000 DF *UND* 0000 (GLIBC_2.34) pthread_join\n\
                       0000 DF *UND* 0000 (GLIBC_2.9) epoll\n0000 DF *UND* 0000 (GCC_3.0) _Unwind_Resume\n";
        assert_eq!(newest_libc(symbols).as_deref(), Some("2.34"));
        assert_eq!(newest_libc("0000 DF *UND* 0000 (GCC_3.0) _Unwind_Resume"), None);
    }
}
