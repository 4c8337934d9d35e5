//! `databroker_storage_*`.

use super::*;

const PLACE: &str = "databroker_storage_connection_string";

fn postgres(text: &str) -> String {
    format!("shared_secret: {SECRET}\ndatabroker_storage_type: postgres\n{PLACE}: '{text}'\n")
}

#[test]
fn postgres_is_a_url_in_the_file_the_environment_or_a_file_of_its_own() {
    const URL: &str = "postgresql://gw:pw@db.corp.example/pomerium?sslmode=verify-full";
    let is_meant = |loaded: &Loaded| {
        let Storage::Postgres(url) = &loaded.settings.storage else {
            panic!("{:?}", loaded.settings.storage)
        };
        assert_eq!(url.expose().as_str(), URL);
        assert!(loaded.warnings.iter().all(|warning| !warning.key.starts_with("databroker")));
        assert!(!format!("{:?}", loaded.settings).contains("gw:pw"));
    };
    is_meant(&good(&postgres(URL)));
    let rest = format!("shared_secret: {SECRET}\ndatabroker_storage_type: postgres\n");
    let pairs = [("DATABROKER_STORAGE_CONNECTION_STRING", URL)];
    is_meant(&read(&minimal(&rest), &pairs).unwrap());
    let dir = folder();
    std::fs::write(dir.path().join("database"), format!("{URL}\n")).unwrap();
    let text = minimal(&format!("{rest}{PLACE}_file: database\n"));
    let env = environment(&[]);
    let loaded = parse(&text, "pomerium.yaml", &|name| env.get(name).cloned(), dir.path()).unwrap();
    is_meant(&loaded);
    assert!(loaded.files.contains(&dir.path().join("database")));
}

#[test]
fn a_folder_may_be_named_in_a_file_of_its_own() {
    let dir = folder();
    std::fs::write(dir.path().join("place"), "file:///var/lib/p\n").unwrap();
    let (text, env) = (minimal(&format!("{PLACE}_file: place\n")), environment(&[]));
    let loaded = parse(&text, "pomerium.yaml", &|name| env.get(name).cloned(), dir.path()).unwrap();
    assert_eq!(loaded.settings.storage, Storage::Folder("/var/lib/p".into()));
}

#[test]
fn a_connection_string_that_is_none_is_refused_and_never_shown() {
    for (text, expected) in [
        ("host=db password=hunter2", "expected postgresql://user:password@host/database"),
        ("mysql://gw:hunter2@db/x", "expected postgresql://user:password@host/database"),
        ("postgresql://gw:hunter2@db:port/x", "with special characters as %XX: invalid port number"),
        ("postgresql://gw@db/x?pasword=hunter2", "has an unknown parameter; known are application_name"),
        ("postgresql://gw:hunter2@db/x?sslmode=verify-ca", "use verify-full"),
        ("postgresql://gw:hunter2@db/x?sslmode=hunter2", "expected disable, prefer, require or verify-full"),
    ] {
        let errors = errors(&postgres(text));
        assert!(errors.contains(&format!("{PLACE}: ")) && errors.contains(expected), "{text}\n{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    let errors = |rest: &str| errors(&format!("{rest}\n"));
    let without_secret = errors(&format!("databroker_storage_type: postgres\n{PLACE}: postgresql://gw@db/x"));
    assert!(without_secret.contains("is sealed by shared_secret"), "{without_secret}");
    let without_place = errors(&format!("shared_secret: {SECRET}\ndatabroker_storage_type: postgres"));
    assert!(without_place.contains(&format!("{PLACE}: is missing")), "{without_place}");
    let without_type = errors(&format!("{PLACE}: postgresql://gw:hunter2@db/x"));
    assert!(without_type.contains("needs databroker_storage_type: postgres"), "{without_type}");
}

#[test]
fn a_database_over_a_network_should_prove_who_it_is() {
    let warns = |text: &str| good(&postgres(text)).warnings.iter().any(|warning| warning.key == PLACE);
    for text in [
        "postgresql://gw@db.corp.example/x",
        "postgresql://gw@10.0.0.5/x?sslmode=require",
        "postgresql:///x?host=db.corp.example",
    ] {
        assert!(warns(text), "{text}");
    }
    for text in [
        "postgresql://gw@127.0.0.1/x",
        "postgresql://gw@[::1]/x",
        "postgresql://gw@localhost/x",
        "postgresql:///x?host=/run/postgresql",
        "postgresql://gw@%2Frun%2Fpostgresql/x",
        "postgresql://gw@db/x?sslmode=verify-full",
    ] {
        assert!(!warns(text), "{text}");
    }
}
