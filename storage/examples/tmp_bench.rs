use antiphon_storage::{
    conformance::rows::{TestRow, log},
    embedded::*,
    *,
};
use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (batch, total, shards): (usize, u64, u16) = (a[1].parse().unwrap(), a[2].parse().unwrap(), 1);
    let dir = std::path::PathBuf::from(&a[3]);
    let _ = std::fs::remove_dir_all(&dir);
    let (tx, rx) = mpsc::sync_channel::<()>(1);
    let mk = || {
        let tx = tx.clone();
        Arc::new(move || {
            let _ = tx.try_send(());
        }) as Wake
    };
    let t = Instant::now();
    let cfg = EmbeddedConfig::new(shards, Arc::new(|e| panic!("{e}")));
    let mut s = Embedded::open(&dir, cfg.clone(), vec![mk()]).unwrap().pop().unwrap();
    println!("fresh open {:?}", t.elapsed());
    let body = [b'x'; 100];
    let convs = 10_000u64;
    let mut heads = vec![0u64; convs as usize];
    let keys: Vec<_> = (0..convs).map(log).collect();
    let (mut done, mut sub, mut c) = (0u64, 0u64, vec![]);
    // warm
    for (i, k) in keys.iter().enumerate() {
        s.submit(Op::Load { log: *k }, Token(u64::MAX - i as u64));
    }
    let mut n = 0;
    while n < convs {
        s.poll_completions(&mut c);
        n += c.len() as u64;
        c.clear();
        if n < convs {
            let _ = rx.recv_timeout(Duration::from_secs(1));
        }
    }
    // pre-make rows
    let mut ops = Vec::new();
    for i in 0..total {
        let k = (i.wrapping_mul(0x9E3779B97F4A7C15) >> 32) % convs;
        heads[k as usize] += 1;
        ops.push(Op::Append {
            log: keys[k as usize],
            rows: vec![
                TestRow { seq: heads[k as usize], sender: 1, client_message_id: (i as u128) << 64 | 7, body: &body }
                    .row(),
            ],
        });
    }
    let mut ops = ops.into_iter();
    let t = Instant::now();
    let mut submit_ns = 0u128;
    let mut times = std::collections::VecDeque::new();
    let mut lat = vec![];
    while done < total {
        let t1 = Instant::now();
        while sub - done < batch as u64 {
            let Some(op) = ops.next() else { break };
            s.submit(op, Token(sub));
            times.push_back(t1);
            sub += 1;
        }
        c.clear();
        s.poll_completions(&mut c);
        submit_ns += t1.elapsed().as_nanos();
        for x in &c {
            x.result.as_ref().unwrap();
            lat.push(times.pop_front().unwrap().elapsed().as_micros() as u64);
        }
        done += c.len() as u64;
        if c.is_empty() {
            let _ = rx.recv_timeout(Duration::from_millis(100));
        }
    }
    let el = t.elapsed().as_secs_f64();
    lat.sort();
    println!(
        "batch {batch}: {:.0}/s, shard CPU {:.2} us/op, p50 {} p99 {} max {} us; {:?}",
        total as f64 / el,
        submit_ns as f64 / 1000.0 / total as f64,
        lat[lat.len() / 2],
        lat[lat.len() * 99 / 100],
        lat[lat.len() - 1],
        s.counters()
    );
    let t = Instant::now();
    drop(s);
    println!("drop {:?}", t.elapsed());
    let t = Instant::now();
    let mut s = Embedded::open(&dir, cfg.clone(), vec![mk()]).unwrap().pop().unwrap();
    println!("reopen with replay {:?}", t.elapsed());
    let t = Instant::now();
    let mut n = 0;
    for i in 0..2000 {
        s.submit(
            Op::Read {
                log: keys[i * 5],
                range: ReadRows {
                    from: 0,
                    to: u64::MAX,
                    direction: Direction::Backward,
                    rows_max: 50,
                    bytes_max: 1 << 20,
                },
            },
            Token(i as u64),
        );
        c.clear();
        loop {
            s.poll_completions(&mut c);
            if !c.is_empty() {
                break;
            }
            let _ = rx.recv_timeout(Duration::from_secs(1));
        }
        if let Ok(Outcome::Rows(r)) = &c[0].result {
            n += r.len();
        }
    }
    println!("2000 pages one at a time: {:?} ({n} rows)", t.elapsed());
    drop(s);
    let t = Instant::now();
    let s = Embedded::open(&dir, cfg, vec![mk()]).unwrap();
    println!("reopen idle {:?}", t.elapsed());
    drop(s);
    let t = Instant::now();
    let r = verify(&dir).unwrap();
    println!("verify {:?} {r:?}", t.elapsed());
    let _ = std::fs::remove_dir_all(&dir);
}
