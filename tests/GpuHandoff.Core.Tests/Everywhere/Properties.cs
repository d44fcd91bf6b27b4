using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using FsCheck;
using FsCheck.Fluent;
using Microsoft.FSharp.Core;
using Xunit.Abstractions;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>
/// Random machines, policies, faults, crashes and company, judged by what must hold whatever happens (<see cref="Trial"/>).
/// PROPERTY_SEED=N plays the one case N again; PROPERTY_FIRST=N begins with case N, PROPERTY_CASES sets how many.
/// </summary>
public class Properties(ITestOutputHelper output)
{
    [Fact]
    public void Whatever_happens_no_gpu_is_lost_and_nothing_is_left_half_done()
    {
        if (Environment.GetEnvironmentVariable("PROPERTY_SEED") is not null)
            Search(cases: 1, runs: 0, Number("PROPERTY_SEED", 0));
        else
            Search(Number("PROPERTY_CASES", 700), runs: 0, Number("PROPERTY_FIRST", 1));
    }

    /// <summary>The same for as many runs as SOAK_RUNS says, with other cases each time.</summary>
    [Fact]
    [Trait("Category", "Soak")]
    public void The_same_for_very_many_runs()
    {
        var (clock, first) = (Stopwatch.StartNew(), Number("PROPERTY_FIRST", Random.Shared.Next(1_000_000_000)));
        var (cases, tally) = Search(cases: 0, Number("SOAK_RUNS", 100_000), first);
        Evidence.Soak(first, cases, tally, clock.Elapsed);
    }

    /// <summary>At least so many cases and so many runs, a thousand cases at a time.</summary>
    (int Cases, Tally Tally) Search(int cases, int runs, int first)
    {
        var (tally, clock, failures, next) = (new Tally(), Stopwatch.StartNew(), new ConcurrentDictionary<string, string>(), first);
        while (failures.IsEmpty && (next < first + cases || tally.Runs < runs))
        {
            var end = cases == 0 ? next + 1000 : Math.Min(first + cases, next + 1000);
            Parallel.For(next, end, new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount }, seed =>
            {
                if (Broken(seed, tally) is var (rule, told))
                    failures.TryAdd(rule, told);
            });
            next = end;
        }
        output.WriteLine($"cases {first} to {next - 1}: {tally.Runs} runs in {clock.Elapsed.TotalSeconds:0.0} s\n{tally}");
        failures.IsEmpty.ShouldBeTrue(string.Join("\n\n", failures.Values));
        return (next - first, tally);
    }

    /// <summary>The rule that a case breaks, with the smallest case that breaks one; null: none.</summary>
    static (string Rule, string Told)? Broken(int seed, Tally tally)
    {
        var smallest = (Case: (Case?)null, Error: (Broken?)null);
        var config = Config.Quick.WithMaxTest(1).WithQuietOnSuccess(true).WithRunner(new Silent())
            .WithReplay(FSharpOption<Replay>.Some(new(new Rnd((ulong)seed, 1), FSharpOption<int>.Some(50))));
        Check.One(config, Prop.ForAll(Cases.Any, c =>
        {
            try
            {
                Trial.Of(c, smallest.Case is null ? tally : new());
                return true;
            }
            catch (Broken broken) when (smallest.Error is null || broken.Rule == smallest.Error.Rule)
            {
                smallest = (c, broken);
                return false;
            }
            catch (Broken)
            {
                // Shrinking stays with the rule that it began with.
                return true;
            }
        }));
        return smallest.Error is { } error
            ? (error.Rule, $"PROPERTY_SEED={seed} breaks a rule; the smallest case found:\n  {smallest.Case}\n{error.Message}")
            : null;
    }

    static int Number(string variable, int otherwise) =>
        int.TryParse(Environment.GetEnvironmentVariable(variable), CultureInfo.InvariantCulture, out var number) ? number : otherwise;

    /// <summary>FsCheck would print to the console; the failures are told by the test.</summary>
    sealed class Silent : IRunner
    {
        public void OnStartFixture(Type t)
        {
        }

        public void OnArguments(int ntest, Microsoft.FSharp.Collections.FSharpList<object> args, FSharpFunc<int, FSharpFunc<Microsoft.FSharp.Collections.FSharpList<object>, string>> every)
        {
        }

        public void OnShrink(Microsoft.FSharp.Collections.FSharpList<object> args, FSharpFunc<Microsoft.FSharp.Collections.FSharpList<object>, string> everyShrink)
        {
        }

        public void OnFinished(string name, TestResult testResult)
        {
        }
    }
}
