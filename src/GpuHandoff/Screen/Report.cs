using System.Collections.Immutable;
using System.Text.Encodings.Web;
using System.Text.Json.Serialization;
using GpuHandoff.Checks;
using GpuHandoff.Formats;
using GpuHandoff.Kernel;
using GpuHandoff.Plans;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;

namespace GpuHandoff.Screen;

/// <summary>One run as data: <c>--json</c>.</summary>
/// <param name="Result">planned, done, refused, rolled-back or stuck.</param>
sealed record Report(string Result, string Summary)
{
    public Plan? Plan { get; init; }

    /// <summary>The plan's steps in words, in their order.</summary>
    public ImmutableArray<string> Steps { get; init; } = [];

    public int Changes { get; init; }

    public ImmutableArray<Finding> Findings { get; init; } = [];

    /// <summary>What the run changed before it refused this: an earlier run that did not end was brought to its end. Null: nothing.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ImmutableArray<string>? Changed { get; init; }

    /// <summary>What did not come back though all was done.</summary>
    public ImmutableArray<string> Warnings { get; init; } = [];

    public ImmutableArray<string> Failures { get; init; } = [];

    public ImmutableArray<string> NotUndone { get; init; } = [];

    public static Report Of(Plan plan) => new("planned", plan.Summary) { Plan = plan, Steps = Words(plan) };

    public static Report Of(Answer.Refused refused) => new(ExitCode.IsLost(refused) ? "stuck" : "refused", refused.What) { Findings = refused.Findings };

    public static Report Of(Plan plan, Outcome outcome) => outcome switch
    {
        Outcome.Done done => new("done", plan.Summary) { Plan = plan, Steps = Words(plan), Changes = done.Changes, Warnings = done.Warnings },
        Outcome.RolledBack back => new("rolled-back", back.What)
        {
            Plan = plan,
            Steps = Words(plan),
            Failures = back.Cause is { } cause ? [cause.Reason] : [],
        },
        Outcome.Stuck stuck => new("stuck", stuck.What)
        {
            Plan = plan,
            Steps = Words(plan),
            Failures = [.. stuck.Failures.Select(f => $"{f.Step.Say()}: {f.Reason}")],
            NotUndone = [.. stuck.NotUndone.Select(s => s.Say())],
        },
        _ => throw new ArgumentOutOfRangeException(nameof(outcome)),
    };

    public static Report Of(KernelSilent silent) => new("stuck", "the kernel does not answer a look at the GPU") { Failures = [silent.Message] };

    static ImmutableArray<string> Words(Plan plan) => [.. plan.Steps().Select(s => s.Say())];
}

/// <summary>Cards and the guests that they are for: <c>vms --json</c>.</summary>
sealed record GuestReport(string? Node, ImmutableArray<Shared> Gpus, ImmutableArray<Hooked> HookAlone, ImmutableArray<string> Troubles);

[JsonSourceGenerationOptions(
    GenerationMode = JsonSourceGenerationMode.Metadata,
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UseStringEnumConverter = true,
    Converters = [typeof(AddressConverter), typeof(IdConverter), typeof(ClassConverter), typeof(VersionConverter)])]
[JsonSerializable(typeof(Report))]
[JsonSerializable(typeof(ImmutableArray<LeaseReport>))]
[JsonSerializable(typeof(PolicyReport))]
[JsonSerializable(typeof(GuestReport))]
sealed partial class ReportJson : JsonSerializerContext
{
    public static ReportJson Plain => new(new(Default.Options!) { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
}
