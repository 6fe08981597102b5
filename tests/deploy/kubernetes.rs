//! `docs/deploy/kubernetes`: Kubernetes' own schemas, kustomize, and every name, port and time against the gateway's.

use std::collections::BTreeSet;
use std::process::Command;

use yaml_rust2::Yaml;

use crate::files::{self, duration, pairs, word, words};
use crate::monitoring::{mistakes, promtool, recorded};
use crate::support::{API_KEY, SECRET, scratch};

/// The oldest version they are checked against; the newest is the one the checker knows.
const OLDEST: &str = "1.29.0";

fn folder() -> std::path::PathBuf {
    files::path("kubernetes")
}

fn listed() -> Vec<String> {
    words(&files::yaml("kubernetes/kustomization.yaml")[0]["resources"])
}

/// Every object that is applied.
fn objects() -> Vec<Yaml> {
    let files = listed();
    files
        .iter()
        .flat_map(|file| files::yaml(&format!("kubernetes/{file}")))
        .collect()
}

fn object(kind: &str, name: &str) -> Yaml {
    let is = |one: &Yaml| word(&one["kind"]) == kind && word(&one["metadata"]["name"]) == name;
    objects()
        .into_iter()
        .find(is)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn pod() -> Yaml {
    object("Deployment", "danmaku")["spec"]["template"]["spec"].clone()
}

fn container() -> Yaml {
    pod()["containers"][0].clone()
}

fn secret_example() -> Yaml {
    files::yaml("kubernetes/secret.example.yaml").remove(0)
}

/// The ConfigMap's file with the Secret's files where they are here, and the environment of the container.
fn settings() -> toml::Table {
    let here = scratch("kubernetes");
    std::fs::create_dir_all(&here).unwrap();
    for (name, secret) in [("auth-secret", SECRET), ("api-key", API_KEY)] {
        std::fs::write(here.join(name), secret).unwrap();
    }
    let mounted = container()["volumeMounts"].as_vec().unwrap().clone();
    let mounted = |name: &str| {
        let mount = mounted
            .iter()
            .find(|mount| word(&mount["name"]) == name)
            .unwrap();
        word(&mount["mountPath"])
    };
    let toml = word(&object("ConfigMap", "danmaku")["data"]["danmaku.toml"]);
    assert_eq!(toml.matches(&mounted("secrets")).count(), 2);
    let toml = toml.replace(&mounted("secrets"), here.to_str().unwrap());
    let file = here.join("danmaku.toml");
    std::fs::write(&file, toml).unwrap();
    let arguments = words(&container()["args"]);
    assert_eq!(
        arguments,
        [
            "serve",
            "--config",
            &format!("{}/danmaku.toml", mounted("config"))
        ]
    );
    let environment = container()["env"].clone();
    let environment = environment.as_vec().unwrap().iter().map(|one| {
        let value = match word(&one["name"]).as_str() {
            "DANMAKU_SERVER__NODE" => "danmaku-6d4cf56db6-x7k2p".to_owned(),
            "DANMAKU_REDIS__URL" => word(&secret_example()["stringData"]["redis-url"]),
            other => panic!("{other}?"),
        };
        (word(&one["name"]), value)
    });
    files::settings(&file, &environment.collect::<Vec<_>>())
}

fn validate(version: Option<&str>, manifests: &[std::path::PathBuf]) -> (bool, String) {
    let mut check = files::from_pip("kubernetes-validate");
    check.arg("--strict");
    if let Some(version) = version {
        check.args(["-k", version]);
    }
    files::try_run("kubernetes-validate", check.args(manifests))
}

#[test]
fn the_schemas_of_kubernetes_take_every_object() {
    let mut all: Vec<_> = listed().iter().map(|file| folder().join(file)).collect();
    all.push(folder().join("secret.example.yaml"));
    for version in [Some(OLDEST), None] {
        let (ok, said) = validate(version, &all);
        assert!(ok && !said.contains("WARN"), "{said}");
        assert_eq!(
            said.matches(" passed ").count(),
            objects().len() + 1,
            "{said}"
        );
    }
    let wrong = scratch("wrong.yaml");
    let text = files::text("kubernetes/deployment.yaml");
    std::fs::write(&wrong, text.replace("minReadySeconds", "minReadySecond")).unwrap();
    let (ok, said) = validate(None, &[wrong]);
    assert!(!ok && said.contains("minReadySecond"), "{said}");
}

#[test]
fn kustomize_builds_them() {
    let mut build = Command::new("kubectl");
    let built = files::run("kubernetes-client", build.arg("kustomize").arg(folder()));
    let kinds: BTreeSet<_> = built
        .lines()
        .filter_map(|line| line.strip_prefix("kind: "))
        .collect();
    let ours = objects();
    assert_eq!(
        kinds,
        ours.iter()
            .map(|one| one["kind"].as_str().unwrap())
            .collect()
    );
    assert!(!kinds.contains("Secret"), "an example is no secret");
}

#[test]
fn a_pod_has_time_to_drain_and_the_next_one_waits_for_it() {
    let settings = settings();
    let stop = &container()["lifecycle"]["preStop"]["exec"]["command"];
    let [sleep, seconds] = &words(stop)[..] else {
        panic!("{stop:?}")
    };
    // The image's Debian has it.
    assert_eq!(sleep, "sleep");
    assert!(files::text("Dockerfile").contains("FROM debian:bookworm-slim"));
    let needed =
        files::time(&settings, "drain", "deadline").as_secs() + seconds.parse::<u64>().unwrap();
    let grace = duration(&pod()["terminationGracePeriodSeconds"]).as_secs();
    assert!(grace >= needed + 10, "{grace} {needed}");
    let deployment = object("Deployment", "danmaku")["spec"].clone();
    let ready = duration(&deployment["minReadySeconds"]).as_secs();
    assert!(ready >= needed, "two pods drain at once");
    let rolling = &deployment["strategy"]["rollingUpdate"];
    assert_eq!(
        (&rolling["maxSurge"], &rolling["maxUnavailable"]),
        (&Yaml::Integer(1), &Yaml::Integer(0))
    );
}

#[test]
fn probes_ask_what_they_should() {
    let container = container();
    let asked = |probe: &str| {
        let get = container[probe]["httpGet"].clone();
        (word(&get["path"]), word(&get["port"]))
    };
    assert_eq!(
        asked("readinessProbe"),
        ("/readyz".into(), "internal".into())
    );
    assert_eq!(
        asked("livenessProbe"),
        ("/healthz".into(), "internal".into())
    );
    let lasts = |probe: &str| {
        let times = container[probe]["failureThreshold"].as_i64().unwrap();
        times * container[probe]["periodSeconds"].as_i64().unwrap()
    };
    assert!(lasts("livenessProbe") > lasts("readinessProbe"));
    // With Redis away no pod is ready: the back end reaches them all the same, and machines can be emptied.
    assert_eq!(
        object("Service", "danmaku-internal")["spec"]["publishNotReadyAddresses"],
        Yaml::Boolean(true)
    );
    assert_eq!(
        word(&object("PodDisruptionBudget", "danmaku")["spec"]["unhealthyPodEvictionPolicy"]),
        "AlwaysAllow"
    );
}

#[test]
fn ports_names_and_labels_agree() {
    let settings = settings();
    let container = container();
    let ports: Vec<_> = container["ports"]
        .as_vec()
        .unwrap()
        .iter()
        .map(|port| {
            (
                word(&port["name"]),
                u64::try_from(port["containerPort"].as_i64().unwrap()).unwrap(),
            )
        })
        .collect();
    let ours = ["public", "internal"].map(|name| (name.to_owned(), files::port(&settings, name)));
    assert_eq!(ports, ours);
    let labels = &object("Deployment", "danmaku")["spec"]["template"]["metadata"]["labels"];
    let deployment = object("Deployment", "danmaku");
    let selectors = [
        deployment["spec"]["selector"]["matchLabels"].clone(),
        object("Service", "danmaku")["spec"]["selector"].clone(),
        object("Service", "danmaku-internal")["spec"]["selector"].clone(),
        object("PodDisruptionBudget", "danmaku")["spec"]["selector"]["matchLabels"].clone(),
        object("NetworkPolicy", "danmaku")["spec"]["podSelector"]["matchLabels"].clone(),
    ];
    assert!(selectors.iter().all(|one| one == labels), "{selectors:?}");
    for (service, port) in [("danmaku", "public"), ("danmaku-internal", "internal")] {
        let found = object("Service", service)["spec"]["ports"][0].clone();
        assert_eq!(word(&found["targetPort"]), port);
        let number = u64::try_from(found["port"].as_i64().unwrap()).unwrap();
        assert_eq!(number, files::port(&settings, port));
    }
    let backend =
        object("Ingress", "danmaku")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
            .clone();
    assert_eq!(
        (word(&backend["name"]), word(&backend["port"]["name"])),
        ("danmaku".into(), "public".into())
    );
    // The image is of this version, and whose files the Secret's are is who runs it.
    let image = word(&container["image"]);
    assert!(
        image.ends_with(concat!(":", env!("CARGO_PKG_VERSION"))),
        "{image}"
    );
    let user = files::text("Dockerfile")
        .lines()
        .find_map(|line| line.strip_prefix("USER ").map(str::to_owned));
    let security = pod()["securityContext"].clone();
    let (user_id, group) = (word(&security["runAsUser"]), word(&security["runAsGroup"]));
    assert_eq!(user.unwrap(), format!("{user_id}:{group}"));
    assert_eq!(word(&security["fsGroup"]), group);
    // The Secret has what is asked of it, and nothing else.
    let example: BTreeSet<_> = pairs(&secret_example()["stringData"])
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    let mut asked = BTreeSet::from(["redis-url".to_owned()]);
    let volumes = pod()["volumes"].clone();
    let secret = volumes
        .as_vec()
        .unwrap()
        .iter()
        .find(|one| word(&one["name"]) == "secrets")
        .unwrap();
    asked.extend(
        secret["secret"]["items"]
            .as_vec()
            .unwrap()
            .iter()
            .map(|item| word(&item["key"])),
    );
    assert_eq!(example, asked);
    let told = files::text("kubernetes/secret.example.yaml");
    assert!(
        asked
            .iter()
            .all(|key| told.contains(&format!("--from-literal={key}=")))
    );
}

#[test]
fn the_autoscaler_leaves_room_for_a_pod_that_goes() {
    let settings = settings();
    let spec = object("HorizontalPodAutoscaler", "danmaku")["spec"].clone();
    let number = |yaml: &Yaml| word(yaml).parse::<u64>().unwrap();
    let pods = spec["metrics"]
        .as_vec()
        .unwrap()
        .iter()
        .find(|one| word(&one["type"]) == "Pods")
        .unwrap();
    let aim = number(&pods["pods"]["target"]["averageValue"]);
    let least = number(&spec["minReplicas"]);
    let most = files::number(&settings, "admission", "connections_max");
    assert!(aim * least <= most * (least - 1), "{aim} {most}");
    let limit = word(&container()["resources"]["limits"]["memory"]);
    assert!(files::memory_for(most) < files::bytes(&limit));
    let cores = number(&container()["resources"]["requests"]["cpu"]);
    assert_eq!(files::number(&settings, "server", "shards"), cores);
    // The replicas are the autoscaler's.
    let deployment = object("Deployment", "danmaku")["spec"].clone();
    assert!(deployment["replicas"].is_badvalue());
    let target = &spec["scaleTargetRef"];
    assert_eq!(
        (word(&target["kind"]), word(&target["name"])),
        ("Deployment".into(), "danmaku".into())
    );
    let down = &spec["behavior"]["scaleDown"];
    assert!(number(&down["stabilizationWindowSeconds"]) >= 900);
    let step = &down["policies"][0];
    assert_eq!(
        (word(&step["type"]), number(&step["value"])),
        ("Pods".into(), 1)
    );
    assert!(
        number(&step["periodSeconds"])
            > duration(&pod()["terminationGracePeriodSeconds"]).as_secs()
    );
}

#[test]
fn the_autoscalers_metric_is_one_that_the_gateway_has_and_the_adapter_tells() {
    let adapter = files::yaml("kubernetes/monitoring/prometheus-adapter.yaml").remove(0);
    let rule = adapter["rules"]["custom"][0].clone();
    let spec = object("HorizontalPodAutoscaler", "danmaku")["spec"].clone();
    let metric = word(&spec["metrics"][0]["pods"]["metric"]["name"]);
    assert_eq!(word(&rule["name"]["as"]), metric);
    let series = word(&rule["seriesQuery"]);
    // As the adapter asks for three pods at once.
    let query = word(&rule["metricsQuery"])
        .replace("<<.Series>>", series.split('{').next().unwrap())
        .replace("<<.LabelMatchers>>", "namespace=\"live\",pod=~\"a|b|c\"")
        .replace("<<.GroupBy>>", "pod");
    assert!(!query.contains("<<"), "{query}");
    // These two are the scrape's, the others the gateway's.
    let scrape = files::yaml("kubernetes/monitoring/prometheus.yml").remove(0);
    let job = scrape["scrape_configs"][0].clone();
    assert_eq!(word(&job["job_name"]), "danmaku");
    let relabelled = job["relabel_configs"].as_vec().unwrap().iter();
    let targets: Vec<_> = relabelled
        .filter_map(|one| one["target_label"].as_str())
        .collect();
    assert_eq!(targets, ["namespace", "pod"]);
    for expression in [&series, &query] {
        let own = expression
            .replace("namespace", "job")
            .replace("pod", "instance");
        assert_eq!(mistakes(&own, &recorded()), Vec::<String>::new());
    }
    let rules = scratch("adapter-rules.yml");
    let record = format!(
        "groups:\n- name: adapter\n  rules:\n  - record: x\n    expr: {}\n",
        serde_json::json!(query)
    );
    std::fs::write(&rules, record).unwrap();
    promtool(&["check", "rules", "--lint=none", rules.to_str().unwrap()]);
}

#[test]
fn promtool_reads_the_scrape() {
    // Debian builds Prometheus without Kubernetes; all else of the file is read.
    let text = files::text("kubernetes/monitoring/prometheus.yml");
    let discovery = "    kubernetes_sd_configs:\n      - role: pod\n";
    assert!(text.contains(discovery));
    let config = scratch("prometheus.yml");
    let target = "    static_configs:\n      - targets: [\"127.0.0.1:8081\"]\n";
    std::fs::write(&config, text.replace(discovery, target)).unwrap();
    promtool(&["check", "config", config.to_str().unwrap()]);
    // The pods it keeps are those of the Deployment, at the internal port.
    let kept = &files::yaml("kubernetes/monitoring/prometheus.yml")[0]["scrape_configs"][0]["relabel_configs"]
        [0];
    assert_eq!(word(&kept["regex"]), "danmaku;internal");
    let from = words(&kept["source_labels"]).concat();
    assert!(
        from.contains("label_app_kubernetes_io_name") && from.contains("container_port_name"),
        "{from}"
    );
}

#[test]
fn nothing_is_open_that_need_not_be() {
    let (pod, container) = (pod(), container());
    let is = |yaml: &Yaml, wanted: bool| assert_eq!(yaml, &Yaml::Boolean(wanted));
    is(&pod["securityContext"]["runAsNonRoot"], true);
    is(&pod["automountServiceAccountToken"], false);
    is(&pod["enableServiceLinks"], false);
    is(
        &container["securityContext"]["allowPrivilegeEscalation"],
        false,
    );
    is(
        &container["securityContext"]["readOnlyRootFilesystem"],
        true,
    );
    assert_eq!(
        words(&container["securityContext"]["capabilities"]["drop"]),
        ["ALL"]
    );
    assert_eq!(
        word(&pod["securityContext"]["seccompProfile"]["type"]),
        "RuntimeDefault"
    );
    // Each listener has rules of its own, and no rule is without whom it is for.
    let policy = object("NetworkPolicy", "danmaku")["spec"].clone();
    let mut open = Vec::new();
    for rule in policy["ingress"].as_vec().unwrap() {
        assert!(!rule["from"].as_vec().unwrap().is_empty());
        open.extend(
            rule["ports"]
                .as_vec()
                .unwrap()
                .iter()
                .map(|port| word(&port["port"])),
        );
    }
    assert_eq!(open, ["public", "internal"]);
    assert_eq!(words(&policy["policyTypes"]), ["Ingress", "Egress"]);
}

#[test]
fn the_ingress_waits_longer_than_the_heartbeat() {
    let settings = settings();
    let annotations = object("Ingress", "danmaku")["metadata"]["annotations"].clone();
    let of =
        |name: &str| word(&annotations[format!("nginx.ingress.kubernetes.io/{name}").as_str()]);
    let waits: u64 = of("proxy-read-timeout").parse().unwrap();
    assert!(waits > 2 * files::time(&settings, "heartbeat", "interval").as_secs());
    assert_eq!(of("proxy-next-upstream"), "error timeout http_503");
    let body = files::number(&settings, "limits", "body_bytes_max");
    assert_eq!(files::bytes(&of("proxy-body-size")), body);
    // It says the same as the nginx that is shipped.
    let nginx = files::text("compose/nginx.conf");
    assert!(nginx.contains("proxy_next_upstream error timeout http_503;"));
}
