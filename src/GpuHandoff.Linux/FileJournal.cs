using System.Text;
using System.Text.Json;
using GpuHandoff.Formats;
using GpuHandoff.Plans;
using GpuHandoff.Runs;

namespace GpuHandoff.Linux;

/// <summary>One run's diary, a JSON object a line: the plan, then what was begun, ended and undone.</summary>
sealed class FileJournal(string path, FileStream file) : IJournal
{
    const int Version = 1;

    public void Opens(Plan plan) =>
        Line($$"""{"journal":{{Version}},"plan":{{JsonSerializer.Serialize(plan, Json.Default.Plan)}}}""");

    public void Begins(int step) => Line($$"""{"begins":{{step}}}""");

    // The next line of any kind brings this one to disk; lost, it costs a look at the machine and nothing else.
    public void Ends(int step) => Line($$"""{"ends":{{step}}}""", flush: false);

    public void Undone(int step) => Line($$"""{"undone":{{step}}}""", flush: false);

    public void Closes(Outcome outcome) => Line($$"""{"closes":"{{outcome switch
    {
        Outcome.Done => "done",
        Outcome.RolledBack => "rolled-back",
        _ => "stuck",
    }}}"}""");

    public void Dispose() => file.Dispose();

    void Line(string text, bool flush = true)
    {
        try
        {
            file.Write(Encoding.UTF8.GetBytes(text + "\n"));
            file.Flush(flushToDisk: flush);
        }
        catch (IOException e)
        {
            throw new LedgerRefused($"{path} cannot be written: {e.Message}", "make room, or mend the file system", e);
        }
    }
}
