//! Every octet arrives once and in order; ends and cuts are told apart.

use super::*;

fn octets(len: usize, from: u8) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n * 31 + n / 251) % 256).unwrap().wrapping_add(from)).collect()
}

/// Sends `up` and `down` at once, each side ending its direction behind it, and returns what arrived.
fn exchange(net: &mut Net, up: &[u8], down: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let handle = net.client.connect(SocketAddr::new(APP, 22), 40_000);
    let id = net.opening(Kind::Tcp);
    net.stack.accept(id, net.now).unwrap();
    let (mut at_app, mut at_client) = (Vec::new(), Vec::new());
    let (mut sent_up, mut sent_down) = (0, 0);
    let (mut is_up_over, mut is_down_over) = (false, false);
    net.steps_until(|net| {
        let socket = net.client.socket(handle);
        if socket.can_send() && sent_up < up.len() {
            sent_up += socket.send_slice(&up[sent_up..]).unwrap();
        }
        if sent_up == up.len() && socket.may_send() {
            socket.close();
        }
        while socket.can_recv() {
            at_client.extend(socket.recv(|come| (come.len(), come.to_vec())).unwrap());
        }
        is_down_over |= matches!(socket.recv(|_| (0, ())), Err(tcp::RecvError::Finished));
        if sent_down < down.len() {
            sent_down += net.stack.write(id, &down[sent_down..], net.now).unwrap();
            if sent_down == down.len() {
                net.stack.shutdown(id);
            }
        }
        is_up_over = is_up_over || net.read(id, &mut at_app);
        is_up_over && is_down_over
    });
    net.stack.leave(id, net.now);
    (at_app, at_client)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_octet_arrives_once_and_in_order_in_any_weather(
        there in prop::collection::vec(0_u8..24, 1..200),
        back in prop::collection::vec(0_u8..24, 1..200),
        up in 1_usize..60_000,
        down in 1_usize..60_000,
    ) {
        // A wire on which nothing ever arrives is no weather.
        prop_assume!(there.iter().any(|fate| *fate > 2) && back.iter().any(|fate| *fate > 2));
        let mut net = Net::new(settings());
        net.there.fates = there;
        net.back.fates = back;
        let (up, down) = (octets(up, 1), octets(down, 2));
        let (at_app, at_client) = exchange(&mut net, &up, &down);
        prop_assert!(at_app == up, "{} of {} octets up", at_app.len(), up.len());
        prop_assert!(at_client == down, "{} of {} octets down", at_client.len(), down.len());
    }
}

/// The end is lost together with octets before it; what answers those that are sent again asks for the end alone.
#[test]
fn an_end_that_was_lost_among_others_is_sent_again() {
    let mut net = Net::new(settings());
    let there = "1 0 2 0 0 2 3 2 3 13 0 19 12 3 13 2 17 17 11 7 19 5 5 12 6 7 1 16 3 14 3 6 11 13 19 9 12 13 13 3 11 3 20";
    let back =
        "20 5 2 4 17 10 23 10 1 16 20 15 5 2 20 12 16 6 1 21 0 19 8 16 23 17 14 9 15 14 0 0 3 16 0 23 11";
    let fates = |text: &str| text.split(' ').map(|fate| fate.parse().unwrap()).collect();
    (net.there.fates, net.back.fates) = (fates(there), fates(back));
    let (up, down) = (octets(37_174, 1), octets(30_439, 2));
    let began = net.now;
    assert_eq!(exchange(&mut net, &up, &down), (up, down));
    assert!(net.now - began < settings().unanswered_timeout, "nobody had to give up");
}

/// The end alone is lost, and three acknowledgements say so.
#[test]
fn an_end_that_was_lost_alone_is_sent_again() {
    let mut net = Net::new(settings());
    net.there.fates = vec![1, 1, 2, 3, 2, 2, 3, 0, 1, 1, 18, 16, 21, 1, 19, 10];
    net.back.fates = vec![19, 0, 0, 12, 8, 21, 1, 17, 23, 9, 11, 5, 5, 17, 19, 10];
    let (up, down) = (octets(4_626, 1), octets(19_556, 2));
    let began = net.now;
    assert_eq!(exchange(&mut net, &up, &down), (up, down));
    assert!(net.now - began < settings().unanswered_timeout, "nobody had to give up");
}

#[test]
fn a_connection_that_is_over_leaves_nothing_behind() {
    let mut net = Net::new(settings());
    exchange(&mut net, b"question", b"answer");
    net.steps_until(|net| net.stack.held() == (0, 0));
    let (at_app, at_client) = exchange(&mut net, b"again", b"and again");
    assert_eq!((at_app.as_slice(), at_client.as_slice()), (&b"again"[..], &b"and again"[..]));
}

#[test]
fn one_direction_flows_on_after_the_other_has_ended() {
    let mut net = Net::new(settings());
    let (handle, id) = net.connection(40_000);
    net.client.socket(handle).close();
    let mut come = Vec::new();
    net.steps_until(|net| net.read(id, &mut come));
    assert_eq!(net.stack.write(id, b"still here", net.now), Ok(10));
    net.steps_until(|net| net.client.socket(handle).recv_queue() == 10);
    net.stack.shutdown(id);
    net.steps_until(|net| net.client.socket(handle).state() == tcp::State::TimeWait);
}

#[test]
fn what_was_received_can_be_read_long_after_both_have_ended() {
    let mut net = Net::new(settings());
    let (handle, id) = net.connection(40_000);
    net.client.socket(handle).send_slice(b"read me late").unwrap();
    net.stack.shutdown(id);
    net.steps_until(|net| net.client.socket(handle).state() == tcp::State::CloseWait);
    net.client.socket(handle).close();
    // A minute, well past TIME-WAIT.
    net.steps(12_000);
    let mut come = Vec::new();
    assert!(net.read(id, &mut come));
    assert_eq!(come, b"read me late");
    net.stack.leave(id, net.now);
    net.steps_until(|net| net.stack.held() == (0, 0));
}

#[test]
fn a_reset_is_no_end() {
    let mut net = Net::new(settings());
    let (handle, id) = net.connection(40_000);
    net.client.socket(handle).abort();
    net.steps_until(|net| net.stack.read(id, |_| 0).is_err());
    assert!(net.stack.write(id, b"x", net.now).is_err());
    net.stack.leave(id, net.now);
    net.steps_until(|net| net.stack.held() == (0, 0));
}

#[test]
fn a_connection_left_in_the_middle_is_reset() {
    let mut net = Net::new(settings());
    let (handle, id) = net.connection(40_000);
    net.stack.write(id, b"half of it", net.now).unwrap();
    net.stack.leave(id, net.now);
    net.sent.clear();
    net.steps_until(|net| net.client.socket(handle).state() == tcp::State::Closed);
    assert!(net.sent.iter().any(|packet| flags(packet).2), "no RST");
    assert!(!matches!(net.client.socket(handle).recv(|_| (0, ())), Err(tcp::RecvError::Finished)));
    assert_eq!(net.stack.held(), (0, 0));
}

#[test]
fn a_silent_connection_lives_and_an_unanswered_one_does_not() {
    let mut net = Net::new(settings());
    let (handle, id) = net.connection(40_000);
    net.now += Duration::from_hours(10);
    net.steps(10);
    net.stack.write(id, b"good morning", net.now).unwrap();
    net.steps_until(|net| net.client.socket(handle).recv_queue() == 12);
    // The client's machine is gone.
    net.back.fates = vec![0];
    net.there.fates = vec![0];
    net.stack.write(id, b"anybody?", net.now).unwrap();
    net.steps(10);
    assert!(net.stack.read(id, |_| 0).is_ok());
    net.now += net_timeout();
    net.steps(10);
    assert!(net.stack.read(id, |_| 0).is_err());
}

fn net_timeout() -> Duration {
    settings().unanswered_timeout + Duration::from_secs(1)
}

#[test]
fn ipv6_connects_too() {
    let mut net = Net::new(settings());
    let handle = net.client.connect(SocketAddr::new(APP_6, 22), 40_000);
    let id = net.opening(Kind::Tcp);
    net.stack.accept(id, net.now).unwrap();
    net.steps_until(|net| net.client.socket(handle).can_send());
    net.client.socket(handle).send_slice(b"six").unwrap();
    let mut come = Vec::new();
    net.steps_until(|net| {
        net.read(id, &mut come);
        come == b"six"
    });
}

/// Sends octets down until all are read; how long that took.
fn time_down(net: &mut Net, octets: usize) -> Duration {
    let (handle, id) = net.connection(40_000);
    let (began, mut sent, mut come) = (net.now, 0, 0);
    let down = vec![7; octets];
    net.steps_until(|net| {
        sent += net.stack.write(id, &down[sent..], net.now).unwrap();
        let socket = net.client.socket(handle);
        while socket.can_recv() {
            come += socket.recv(|come| (come.len(), come.len())).unwrap();
        }
        come == octets
    });
    net.now - began
}

#[test]
fn several_losses_of_one_moment_do_not_wait_for_the_clock() {
    let mut net = Net::new(settings());
    // Behind the handshake and slow start, each second one of six.
    net.back.fates = vec![u8::MAX; 400];
    for lost in [40, 42, 44] {
        net.back.fates[lost] = 0;
    }
    assert!(time_down(&mut net, 300_000) < Duration::from_secs(1), "the clock of smoltcp starts at a second");
}
