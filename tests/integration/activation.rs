//! A socket that a service manager has opened (sd_listen_fds(3)).

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::support::sidegate::binary;
use super::support::{McpClient, within};

/// `serve`, with these descriptors as 3 and so on, and told that they are for it.
fn serve(home: &Path, sockets: &[&TcpListener], arguments: &[&str]) -> Command {
    let mut redirections = String::new();
    for (index, socket) in sockets.iter().enumerate() {
        // Other tests of this process may start children at the same time: those get it too, and do nothing with it.
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
        redirections.push_str(&format!(" {}<&{}", 3 + index, socket.as_raw_fd()));
    }
    let script =
        format!("export LISTEN_PID=$$ LISTEN_FDS={}; exec \"$0\" \"$@\"{redirections}", sockets.len());
    let mut command = Command::new("bash");
    command.args(["-c", &script]).arg(binary()).args(["serve", "--gateway", "embedded", "--output", "json"]);
    command.arg("--config-dir").arg(home).args(arguments).env("HOME", home).env("XDG_RUNTIME_DIR", home);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn it_is_served_on() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut child = serve(home.path(), &[&socket], &[]).spawn().unwrap();
    drop(socket);
    // Who connects before it is ready waits, and is served.
    let client = within("a client", McpClient::connect(&format!("http://{address}/mcp"))).await;
    assert!(client.session_id().is_some());
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = within("the end", child.wait()).await.unwrap();
    assert!(output.success());
}

#[tokio::test]
async fn what_cannot_be_served_on_is_said() {
    let sockets = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
    let home = tempfile::tempdir().unwrap();
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    for (sockets, arguments, expected) in [
        (&[&sockets[0], &sockets[1]][..], &[][..], "the service manager passes 2 sockets, and one is served"),
        (&[&sockets[0]], &["--listen", "127.0.0.1:0"], "both say where to listen"),
        (&[&everywhere], &[], "other machines can reach this address, so a token is needed"),
    ] {
        let output = within("the end", serve(home.path(), sockets, arguments).output()).await.unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}
