//! Chromium without a window, by way of chromedriver, in a namespace.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xlvs_lab::{Netns, Process};

use super::within;

const DRIVER: &str = "http://127.0.0.1:9515";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A browser with one page.
pub struct Browser<'n> {
    netns: &'n Netns,
    session: String,
    scratch: PathBuf,
    _driver: Process,
}

impl<'n> Browser<'n> {
    /// Starts one that keeps its things in this directory.
    pub fn start(netns: &'n Netns, scratch: &Path) -> Result<Self> {
        let log = File::create(scratch.join("chromedriver.log"))?;
        let mut driver = Command::new("chromedriver");
        driver.args(["--port=9515"]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The browsers that it starts end with it.
        driver.process_group(0);
        let driver = netns.spawn(&mut driver).context("start chromedriver (Debian: chromium-driver)")?;
        let mut browser =
            Self { netns, session: String::new(), scratch: scratch.to_owned(), _driver: driver };
        within(PATIENCE, "chromedriver is ready", || {
            Ok(browser.ask("GET", "/status", &Value::Null).is_ok_and(|status| status["ready"] == true))
        })?;
        let data = format!("--user-data-dir={}", scratch.join("chromium").display());
        let options = json!([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            data,
        ]);
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": options } } } });
        let session = browser.ask("POST", "/session", &wanted)?;
        browser.session = session["sessionId"].as_str().context("a session")?.to_owned();
        Ok(browser)
    }

    /// Opens a page.
    pub fn open(&self, url: &str) -> Result<()> {
        self.command("/url", json!({ "url": url })).map(drop)
    }

    /// What a function's body returns in the page.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Has the page shown so wide, in a dark room or not.
    pub fn shape(&self, (width, height): (u32, u32), dark: bool) -> Result<()> {
        let phone = width < 600;
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone }),
        )?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }))
    }

    /// A picture of what is shown, in this file.
    pub fn picture(&self, file: &Path) -> Result<()> {
        let answer = self.scratch.join("picture.base64");
        let picture = self.ask("GET", &format!("/session/{}/screenshot", self.session), &Value::Null)?;
        std::fs::write(&answer, picture.as_str().context("a picture")?)?;
        let decode = Command::new("base64").arg("-d").arg(&answer).output()?;
        ensure!(decode.status.success(), "the picture cannot be decoded");
        std::fs::write(file, decode.stdout).with_context(|| format!("write {}", file.display()))
    }

    fn devtools(&self, command: &str, params: Value) -> Result<()> {
        self.command("/goog/cdp/execute", json!({ "cmd": command, "params": params })).map(drop)
    }

    fn command(&self, path: &str, body: Value) -> Result<Value> {
        self.ask("POST", &format!("/session/{}{path}", self.session), &body)
    }

    /// Asks chromedriver, in its namespace.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-S", "-X", method, &format!("{DRIVER}{path}")]);
        if !body.is_null() {
            curl.args(["--json", &body.to_string()]);
        }
        let reply = self.netns.output(&mut curl)?;
        let mut text = String::new();
        reply.stdout.as_slice().read_to_string(&mut text)?;
        let answer: Value =
            serde_json::from_str(&text).with_context(|| format!("{path}: {text} {reply:?}"))?;
        ensure!(answer["value"]["error"].is_null(), "{path}: {}", answer["value"]);
        Ok(answer["value"].clone())
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        // Ends the browser; the driver ends with its process.
        let _ended = self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
    }
}
