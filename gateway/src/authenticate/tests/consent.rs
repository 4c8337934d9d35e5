//! The questions of the sign-in host: to programs, and to hosts that only a wildcard names.

use super::*;

const LOOSE: &str = "https://loose.apps.example.com/";

fn program_asks() -> Url {
    url("https://app.example.com/.pomerium/api/v1/login?pomerium_redirect_uri=http://127.0.0.1:5555/")
}

async fn question_for_a_program(service: &Authenticate, browser: &mut Browser) -> Response<Bytes> {
    let asked = Browser::default().get(service, &program_asks(), at(NOW)).await;
    browser.get(service, &url(std::str::from_utf8(asked.body()).unwrap()), at(NOW)).await
}

async fn question_for_a_host(service: &Authenticate, browser: &mut Browser) -> Response<Bytes> {
    let sign_in = browser.begin(service, &url(LOOSE), at(NOW));
    browser.get(service, &sign_in, at(NOW)).await
}

#[tokio::test]
async fn a_program_gets_nothing_before_the_person_has_said_so_and_is_asked_of_each_time() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    for _ in 0..2 {
        let question = question_for_a_program(&service, &mut browser).await;
        let page = std::str::from_utf8(question.body()).unwrap();
        assert_eq!(question.status(), StatusCode::OK);
        assert!(!question.headers().contains_key(header::LOCATION) && !page.contains("pomerium_jwt"));
        for said in ["http://127.0.0.1:5555", "on this computer", "alice@example.com", "app.example.com"] {
            assert!(page.contains(said), "{said}: {page}");
        }
        let hand_over = browser.go_on(&service, &question, at(NOW)).await;
        let back = location(&browser.get(&service, &location(&hand_over), at(NOW)).await);
        assert!(back.as_str().starts_with("http://127.0.0.1:5555/?pomerium_jwt="));
    }
}

#[tokio::test]
async fn an_answer_counts_once_in_time_from_our_own_form_and_for_whom_it_was_asked() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let question = question_for_a_program(&service, &mut browser).await;
    let ticket = ticket(&question);
    let to = url("https://authenticate.example.com/.pomerium/continue");
    let fields = [("ticket", ticket.as_str())];
    let refused = |response: Response<Bytes>, why: &str| {
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{why}");
        assert!(!response.headers().contains_key(header::LOCATION), "{why}");
    };
    let foreign = Some("https://evil.example");
    refused(browser.post(&service, &to, &fields, foreign, at(NOW)).await, "another site's form");
    refused(browser.post(&service, &to, &[], None, at(NOW)).await, "no question");
    let changed = format!("A{}", &ticket[1..]);
    refused(browser.post(&service, &to, &[("ticket", &changed)], None, at(NOW)).await, "another question");
    refused(browser.post(&service, &to, &fields, None, at(NOW + 300)).await, "too late");
    refused(Browser::default().post(&service, &to, &fields, None, at(NOW)).await, "another browser");
    assert_eq!(browser.get(&service, &to, at(NOW)).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    location(&browser.post(&service, &to, &fields, None, at(NOW)).await);
    refused(browser.post(&service, &to, &fields, None, at(NOW)).await, "a second time");
    service.store.end_session(&SessionId::new("s1")).await.unwrap();
    refused(browser.post(&service, &to, &fields, None, at(NOW)).await, "signed out");
}

#[tokio::test]
async fn a_host_that_only_a_wildcard_names_is_asked_of_once_for_a_session() {
    let service = service().await;
    let mut browser = signed_in(&service).await;
    let question = question_for_a_host(&service, &mut browser).await;
    assert_eq!(question.status(), StatusCode::OK);
    let page = std::str::from_utf8(question.body()).unwrap();
    assert!(page.contains("loose.apps.example.com") && page.contains("alice@example.com"), "{page}");
    let hand_over = browser.go_on(&service, &question, at(NOW)).await;
    assert_eq!(location(&browser.get(&service, &location(&hand_over), at(NOW)).await), url(LOOSE));

    location(&question_for_a_host(&service, &mut browser).await);
    let other = url("https://other.apps.example.com/");
    let sign_in = browser.begin(&service, &other, at(NOW));
    let response = browser.get(&service, &sign_in, at(NOW)).await;
    assert_eq!(response.status(), StatusCode::OK, "the word was for another host");
}
