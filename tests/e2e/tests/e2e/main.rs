//! What AION promises, said to the real daemons on the real kernel through the real command line.
//!
//! Most tests share one pair of daemons and run side by side. Those that kill daemons, or fill or break what the
//! daemons stand on, have a pair of their own. After the last test nothing may be left in the kernel.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

mod agent;
mod alerts;
mod audit_log;
mod backup;
mod backup_point;
mod bad_input;
mod configuration;
mod crash_aiond;
mod crash_launcher;
mod detections;
mod detections_grams;
mod detections_near;
mod detections_rules;
mod devices;
mod egress;
mod egress_limits;
mod egress_live;
mod egress_world;
mod exec;
mod exit_codes;
mod files_live;
mod health;
mod inside;
mod kernel;
mod kernel_approvals;
mod kernel_bounds;
mod kernel_contract;
mod kernel_fetch;
mod kernel_files;
mod kernel_fuzz;
mod kernel_grpc;
mod kernel_local_model;
mod kernel_mail;
mod kernel_peers;
mod kernel_sdk;
mod kernel_servers;
mod kernel_telemetry;
mod layers;
mod learn;
mod leftovers;
mod lifecycle;
mod limits;
mod names;
mod observe;
mod output;
mod programs;
mod restart;
mod signed;
mod support;
mod tasks;
mod tasks_crash;
mod tasks_node;
mod tasks_preempt;
mod terminal;
mod trouble;

use std::process::ExitCode;
use std::time::Instant;

use aion_e2e::{Daemons, Options, Report, Scale, Suite, Verdict, why_not};

/// Tests that share a pair of daemons.
macro_rules! shared {
    ($suite:ident, $daemons:ident: $($module:ident::{$($name:ident),* $(,)?})*) => {
        $($($suite.test(concat!(stringify!($module), "::", stringify!($name)), || $module::$name($daemons));)*)*
    };
}

/// Tests that start daemons of their own.
macro_rules! alone {
    ($suite:ident: $($module:ident::{$($name:ident),* $(,)?})*) => {
        $($($suite.test(concat!(stringify!($module), "::", stringify!($name)), $module::$name);)*)*
    };
}

/// The same for those that a kernel may lack something for.
macro_rules! where_it_can {
    ($suite:ident, $missing:expr => $module:ident::{$($name:ident),* $(,)?}) => {
        $($suite.test(concat!(stringify!($module), "::", stringify!($name)), || match $missing {
            Some(why) => Verdict::Skipped(why),
            None => {
                $module::$name();
                Verdict::Passed
            }
        });)*
    };
}

/// An emulated machine makes no 8000 processes in ten seconds, which is what a rule takes for a flood; builds take minutes there, and
/// tell nothing of its kernel.
fn small() -> Option<String> {
    (Scale::current() == Scale::Small).then(|| "not at the small scale".to_owned())
}

fn main() -> ExitCode {
    let begun = Instant::now();
    let options = Options::read(std::env::args().skip(1));
    let mut report = Report::default();
    if let Some(why) = why_not().filter(|_| !options.lists()) {
        // Nothing is started: the tests are only named.
        let nobody = std::sync::OnceLock::new();
        report.skip_all(together(&options, &nobody), &why);
        report.skip_all(apart(&options), &why);
        return report.close(begun);
    }
    let daemons = std::sync::OnceLock::new();
    let suite = together(&options, &daemons);
    if !suite.is_empty() && !options.lists() {
        match Daemons::start() {
            Ok(pair) => drop(daemons.set(pair)),
            Err(error) => {
                report.check("daemons_start", Err(format!("{error:#}")));
                return report.close(begun);
            }
        }
    }
    suite.run(3, &mut report);
    if let Some(pair) = daemons.into_inner() {
        report.check(
            "leftovers::nothing_is_left_after_all_of_it",
            pair.finish().map_err(|error| format!("{error:#}")),
        );
    }
    apart(&options).tried_again(waits_for_others).run(2, &mut report);
    if options.lists() { ExitCode::SUCCESS } else { report.close(begun) }
}

/// Whether a failure may have been the machine's. What may never happen is not tried until it does not: an effect lost or doubled, a
/// record changed unseen, a way around a rule.
fn waits_for_others(name: &str) -> bool {
    const NEVER: [&str; 10] = [
        "audit_log::",
        "backup",
        "crash_",
        "devices::",
        "egress",
        "files_live::",
        "kernel_files::",
        "leftovers::",
        "signed::",
        "tasks_crash::",
    ];
    !NEVER.iter().any(|part| name.starts_with(part))
}

type Shared = std::sync::OnceLock<Daemons>;

fn together<'a>(options: &Options, shared: &'a Shared) -> Suite<'a> {
    let mut suite = Suite::new(options);
    shared!(suite, shared:
        inside::{its_own_processes_alone, no_host_files, no_network, no_privileges, system_is_read_only,
            a_private_tmp, the_workspace, nothing_of_the_callers_environment, no_leaked_descriptors, an_unprivileged_user}
        exit_codes::{the_childs_code, not_found_and_not_executable, signals, own_errors, wait_prints_the_code, rm_leaves_nothing}
        output::{every_byte_arrives, the_order_between_streams_is_kept, following_ends_with_the_agent, tail_since_and_timestamps,
            one_stream_alone, the_size_limit_drops_the_oldest_and_says_so, output_of_background_children}
        lifecycle::{pause_and_resume, stop_is_gentle_first, stop_kills_after_its_time, stop_of_a_hundred_processes, kill_sends_signals,
            states_are_told_apart, several_at_once, rm_needs_force_for_a_running_agent, ps_filters, apply_is_idempotent}
        exec::{codes_and_streams, stdin_and_environment, it_is_as_confined_as_the_agent, a_signal_ends_it, it_needs_a_running_agent}
        names::{a_name_is_taken_once, names_that_are_nearly_right, pieces_of_ids}
        bad_input::{manifests, command_lines, missing_programs, profiles_and_secrets, a_taken_name_leaves_nothing}
        layers::{inspect_lists_each_layer_as_set_up, layers_are_true, what_is_missing_is_said,
            a_kernel_that_has_them_all_gives_them_all, the_kernel_refuses_what_seccomp_lets_pass}
        limits::{memory, processes, file_size, disk, wall_clock, processor, open_files}
        restart::{on_failure_until_its_limit, always_until_stopped, never}
        programs::{python, node, a_static_binary, a_script}
        observe::{events_tell_what_happened, denials_are_explained, stats_and_top, system_calls_are_counted, doctor_and_version, bystanders_are_never_recorded}
        terminal::{a_terminal_inside, detach_keys_leave_it_running, signals_reach_the_foreground}
    );
    suite
}

fn apart<'a>(options: &Options) -> Suite<'a> {
    let mut suite = Suite::new(options);
    where_it_can!(suite, egress_world::missing() => egress::{allowed_names_work_for_curl_python_and_node,
        every_way_around_fails_and_no_packet_leaves, names_are_asked_for_by_the_list_and_run_out, verdicts_outlive_the_daemons,
        what_cannot_be_set_up_does_not_start});
    where_it_can!(suite, small() => detections::{ordinary_work_raises_nothing, what_floods_is_slowed_or_stopped});
    where_it_can!(suite, egress_world::missing() => egress_live::{rules_are_taken_and_given_back_under_open_connections,
        what_stays_until_the_next_start_is_told});
    where_it_can!(suite, egress_world::missing() => egress_limits::{a_budget_is_held_to_the_byte_and_without_daemons,
        connections_beyond_a_rate_are_refused_and_others_are_not, what_the_operator_bounds_is_refused_or_given});
    where_it_can!(suite, files_live::missing() => files_live::{rules_are_taken_and_given_back_while_it_works,
        a_launcher_that_dies_in_a_reload_does_it_afterwards, what_the_agent_moved_is_found,
        moving_all_the_time_keeps_nothing});
    where_it_can!(suite, devices::missing() => devices::{who_was_given_one_opens_it_until_it_is_taken});
    where_it_can!(suite, egress_world::missing().or_else(small) => egress_live::{a_launcher_that_dies_in_a_reload_does_it_afterwards});
    alone!(suite:
        devices::{what_no_agent_gets_is_refused_at_the_launch, the_launcher_gives_none_unasked}
        crash_aiond::{agents_and_output_survive_many_kills, run_survives_a_restart, starts_happen_once}
        crash_launcher::{agents_are_readopted, what_ended_meanwhile_is_known, enforcement_holds_without_daemons}
        health::{each_part_tells_how_it_is, a_start_says_what_it_found}
        audit_log::{a_storm_is_counted_to_the_last_process, strict_loses_nothing, tampering_is_found}
        backup::{a_state_moves_while_everything_runs, what_is_not_whole_or_not_for_us_is_refused,
            one_at_a_time_and_nothing_stays_of_one_that_was_cut_off, a_full_disk_leaves_nothing_of_it, a_disk_of_its_own_is_filled}
        backup_point::{tasks_are_as_they_were_at_an_event_and_at_a_moment, an_archive_that_does_not_lead_there_is_refused}
        observe::{top_of_nothing}
        lifecycle::{what_never_ran_has_not_ended}
        support::{what_helps_is_in_it_and_no_secret_is_also_without_a_daemon}
        trouble::{a_full_disk, no_more_cgroups}
        tasks::{from_submission_to_result, what_a_process_leaves_behind, order_dependencies_retries_and_cancelling, bad_input_changes_nothing,
            quotas_say_why_and_when, everybody_has_their_own, a_journal_moves, a_full_disk_refuses_new_tasks,
            what_a_running_job_keeps_is_told_by_its_launch}
        tasks_preempt::{a_service_and_a_job_leave_checkpoints_and_go_on, who_does_not_answer_is_frozen_in_place,
            who_may_not_be_frozen_is_stopped, under_pressure_all_results_are_right}
        tasks_crash::{what_runs_runs_on_and_happens_once, in_the_middle_of_making_room, agents_and_both_daemons}
        detections::{what_is_run_and_how_is_found_and_answered, what_leaves_is_cut_off}
        detections_grams::{a_program_that_changes_is_told_and_one_that_does_not_is_not}
        detections_near::{what_no_work_does_is_found, what_comes_near_is_not_found}
        detections_rules::{rules_are_read_again_all_of_them_or_none, a_daemon_finds_what_happened_while_it_was_away,
            what_was_taken_stays_taken_without_daemons, an_agent_s_restart_gets_it_out_of_nothing}
        alerts::{what_is_found_is_posted_until_it_is_taken}
        kernel_fetch::{offline_nothing_leaves_the_host, requests_go_where_the_operator_and_the_manifest_let_them,
            a_secret_works_at_its_hosts_and_lies_nowhere_in_the_clear}
        kernel::{a_signed_call_is_answered_by_a_tool_in_a_sandbox, what_is_not_right_is_refused_with_its_reason,
            memories_and_tools_survive_a_crash_of_the_daemon, clients_that_misbehave_hold_nobody_up}
        kernel_contract::{its_bodies_work_as_they_stand, a_stream_ends_when_its_tenant_is_revoked,
            an_operator_s_mistake_is_told_by_its_flag}
        kernel_bounds::{a_tenant_s_bounds_hold_at_the_next_start, nobody_leaves_a_call_behind_or_unpaid}
        kernel_approvals::{what_a_rule_names_waits_for_an_operator, a_question_ends_with_its_time_and_its_caller,
            a_stop_of_the_daemon_waits_for_nobody}
        kernel_files::{files_are_read_and_written_as_the_agent_would, limits_of_size_and_disk_hold, no_link_and_no_name_leads_out,
            what_is_no_file_holds_nobody_up, a_race_is_not_won, a_file_is_replaced_as_a_whole}
        kernel_mail::{messages_stay_in_their_tenant_and_survive_a_crash}
        kernel_grpc::{who_signs_is_served_and_nobody_else, a_certificate_says_who_calls,
            slow_half_open_and_flooding_clients_hold_nobody_up, a_large_first_request_comes_over_a_slow_line}
        kernel_sdk::{its_clients_and_samples_work_over_signed_http, an_agent_calls_from_inside_its_sandbox}
        kernel_fuzz::{what_schemathesis_makes_up_is_answered_as_documented}
        kernel_telemetry::{spans_reach_a_collector_in_the_caller_s_trace, prometheus_takes_the_figures}
        kernel_servers::{a_server_is_confined_kept_and_replaced, webassembly_runs_within_its_limits, servers_from_npm_run_unmodified}
        kernel_peers::{openai_langchain_and_mcp_clients_are_served}
        kernel_local_model::{llama_cpp_answers_with_tokens_that_are_counted}
        configuration::{all_that_is_wrong_is_told_with_who_says_it_and_nothing_starts,
            rules_that_go_while_aiond_runs_leave_what_was_before}
        learn::{a_run_s_least_profile_is_enough_for_it_and_no_more}
        signed::{what_must_be_signed_is_refused_when_it_is_not_or_was_changed}
        leftovers::{purge_after_a_crash, stopping_everything_leaves_nothing}
    );
    suite
}
