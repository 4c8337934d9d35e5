use proptest::prelude::*;

use super::*;

#[test]
fn os_release_is_read_with_and_without_quotes() {
    let text = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\nVERSION='12 (bookworm)'\n#X=1\n";
    assert_eq!(os_release(text, "VERSION_ID"), Some("12"));
    assert_eq!(os_release(text, "ID"), Some("debian"));
    assert_eq!(os_release(text, "VERSION"), Some("12 (bookworm)"));
    assert_eq!(os_release(text, "VARIANT_ID"), None);
}

#[test]
fn a_version_is_its_numbers() {
    for (text, number) in [
        ("12", "12"),
        ("12.5\n", "12.5"),
        ("Microsoft Windows [Version 10.0.22631.4317]", "10.0.22631.4317"),
        ("14.6.1\n", "14.6.1"),
        ("24.04 LTS", "24.04"),
        ("3..5", "3"),
        ("7.", "7"),
        ("rolling", ""),
        ("", ""),
    ] {
        assert_eq!(version_number(text), number, "{text}");
    }
}

const MOUNTS: &str = "\
proc /proc proc rw 0 0
/dev/mapper/vg-root / ext4 rw,relatime 0 0
/dev/mapper/luks-home /home ext4 rw 0 0
/dev/sdb1 /home/a\\040b ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
/dev/sdc1 /tmp ext4 rw 0 0
broken
";

#[test]
fn the_home_is_on_the_longest_mount_that_holds_it() {
    for (path, source) in [
        ("/home/alice", "/dev/mapper/luks-home"),
        ("/home/a b/c", "/dev/sdb1"),
        ("/homes/x", "/dev/mapper/vg-root"),
        ("/root", "/dev/mapper/vg-root"),
        ("/tmp/x", "/dev/sdc1"),
    ] {
        assert_eq!(mount_of(MOUNTS, Path::new(path)).unwrap().source, source, "{path}");
    }
    assert_eq!(mount_of("", Path::new("/home")), None);
}

fn machine(name: &str) -> Block {
    let mapped = |id: &str, parts: &[&str]| Block {
        mapper_id: Some(id.to_owned()),
        made_of: parts.iter().map(|&part| part.to_owned()).collect(),
    };
    match name {
        "dm-0" => mapped("CRYPT-LUKS2-0123-sda2_crypt", &["sda2"]),
        "dm-1" => mapped("LVM-abc", &["dm-0"]),
        "dm-2" => mapped("LVM-def", &["dm-0", "sdb1"]),
        "md0" => Block { mapper_id: None, made_of: vec!["dm-0".to_owned(), "dm-0".to_owned()] },
        "dm-9" => mapped("LVM-loop", &["dm-9"]),
        _ => Block::default(),
    }
}

#[test]
fn a_disk_is_encrypted_only_if_each_way_down_is() {
    for (name, expected) in [
        ("dm-0", Some(true)),
        ("dm-1", Some(true)),
        ("md0", Some(true)),
        ("dm-2", Some(false)),
        ("sda1", Some(false)),
        ("dm-9", None),
    ] {
        assert_eq!(is_encrypted(name, &machine), expected, "{name}");
    }
}

#[test]
fn a_firewall_counts_when_the_system_says_that_it_is_on() {
    assert!(ufw_is_on("# comment\nENABLED=yes\nLOGLEVEL=low\n"));
    assert!(!ufw_is_on("#ENABLED=yes\nENABLED=no\n"));
    assert!(any_unit_is_active("inactive\nactive\n"));
    assert!(!any_unit_is_active("inactive\nfailed\nunknown\n"));
    assert_eq!(mac_firewall_is_on("Firewall is enabled. (State = 1)"), Some(true));
    assert_eq!(mac_firewall_is_on("Firewall is disabled. (State = 0)"), Some(false));
    assert_eq!(mac_firewall_is_on(""), None);
}

#[test]
fn a_screen_that_never_goes_idle_never_locks() {
    assert_eq!(gnome_locks("true\n", "uint32 300\n"), Some(true));
    assert_eq!(gnome_locks("true\n", "uint32 0\n"), Some(false));
    assert_eq!(gnome_locks("false\n", "uint32 300\n"), Some(false));
    assert_eq!(gnome_locks("", "uint32 300\n"), None);
    assert_eq!(gnome_locks("true", "No such schema"), None);
    assert!(kde_locks("[Daemon]\nTimeout=10\n"));
    assert!(!kde_locks("[Daemon]\nAutolock=false\n"));
}

#[test]
fn file_vault_is_on_off_or_not_known() {
    assert_eq!(filevault_is_on("FileVault is On.\n"), Some(true));
    assert_eq!(filevault_is_on("FileVault is Off.\n"), Some(false));
    assert_eq!(filevault_is_on("Error: not permitted"), None);
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "(?s).{0,200}", path in ".{0,40}") {
        let _may_be_none = mount_of(&text, Path::new(&path));
        let _may_be_none = os_release(&text, "VERSION_ID");
        let _may_be_none = gnome_locks(&text, &text);
        let number = version_number(&text);
        prop_assert!(number.split('.').all(|part| number.is_empty() || !part.is_empty()));
        prop_assert!(number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
    }

    #[test]
    fn a_mount_point_comes_back_as_it_was(name in "[a-z \\\\]{1,12}") {
        let escaped = name.replace('\\', "\\134").replace(' ', "\\040");
        let mounts = format!("/dev/x /{escaped} ext4 rw 0 0\n");
        let found = mount_of(&mounts, &Path::new("/").join(&name).join("file"));
        let source = found.map(|mount| mount.source);
        prop_assert_eq!(source.as_deref(), Some("/dev/x"));
    }
}
