//! The PAC file: tells a browser what goes through the proxy, which is the gateway's routes and nothing else. Pure.

use std::{collections::BTreeSet, net::SocketAddr};

use pomerium_shared::destination::Destination;

/// The media type; with `nosniff` no page can load it as a script and so learn the names.
pub(super) const CONTENT_TYPE: &str = "application/x-ns-proxy-autoconfig";

/// The file for a proxy at an address. A route is its host and its port: the same host on another port goes direct.
pub(super) fn text(proxy: SocketAddr, routes: &BTreeSet<Destination>) -> String {
    let names: Vec<String> = routes.iter().map(Destination::to_string).collect();
    // JSON is what JavaScript reads; destinations have no character that would need more care than that.
    let names = serde_json::json!(
        names.iter().map(|name| (name.as_str(), 1)).collect::<std::collections::BTreeMap<_, _>>()
    );
    format!(
        "// What the gateway lists for you goes through it; everything else goes its own way.\n\
         var routes = {names};\n\
         var ports = {{\"http\": \"80\", \"ws\": \"80\", \"https\": \"443\", \"wss\": \"443\", \"ftp\": \"21\"}};\n\
         function FindProxyForURL(url, host) {{\n  \
           var parts = /^([a-z]+):\\/\\/(?:[^\\/?#@]*@)?(?:\\[[^\\]]*\\]|[^\\/?#:]*)(?::([0-9]+))?/i.exec(url);\n  \
           if (!parts) return \"DIRECT\";\n  \
           var port = parts[2] || ports[parts[1].toLowerCase()];\n  \
           var name = host.toLowerCase().replace(/\\.$/, \"\");\n  \
           if (name.indexOf(\":\") >= 0 && name.charAt(0) != \"[\") name = \"[\" + name + \"]\";\n  \
           return routes.hasOwnProperty(name + \":\" + port) ? \"SOCKS5 {proxy}; PROXY {proxy}\" : \"DIRECT\";\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// What a browser would do, by the engine of Node.js.
    fn ways(file: &str, urls: &[(&str, &str)]) -> Vec<String> {
        let calls =
            urls.iter().map(|(url, host)| format!("console.log(FindProxyForURL({url:?}, {host:?}));\n"));
        let mut node = std::process::Command::new("node")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let script = format!("{file}{}", calls.collect::<String>());
        node.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let said = node.wait_with_output().unwrap();
        assert!(said.status.success());
        String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn routes_go_through_the_proxy_and_all_else_goes_direct() {
        let routes = ["app.corp.example:8080", "wiki.corp.example:443", "[2001:db8::1]:80"];
        let routes = routes.iter().map(|route| route.parse().unwrap()).collect();
        let file = text(([127, 0, 0, 1], 1080).into(), &routes);
        let through = "SOCKS5 127.0.0.1:1080; PROXY 127.0.0.1:1080";
        let told = ways(
            &file,
            &[
                ("http://app.corp.example:8080/x?y=http://other:1", "app.corp.example"),
                ("https://WIKI.corp.example/", "WIKI.corp.example"),
                ("wss://wiki.corp.example./", "wiki.corp.example."),
                ("http://[2001:db8::1]/", "2001:db8::1"),
                ("http://app.corp.example/", "app.corp.example"),
                ("http://wiki.corp.example/", "wiki.corp.example"),
                ("https://bank.example/?wiki.corp.example:443", "bank.example"),
                ("http://me:8080@app.corp.example/", "app.corp.example"),
                ("http://toString:80/", "toString"),
                ("nonsense", "nonsense"),
            ],
        );
        let expected: Vec<&str> = [through; 4].into_iter().chain(["DIRECT"; 6]).collect();
        assert_eq!(told, expected);
    }
}
