using System.Text;
using GpuHandoff.Plans;
using GpuHandoff.Runs;

namespace GpuHandoff.Linux;

/// <summary>One run's diary on disk.</summary>
sealed class FileJournal(string path, FileStream file) : IJournal
{
    public void Opens(Plan plan) => Line(JournalText.Opens(plan));

    public void Begins(int step) => Line(JournalText.Begins(step));

    // The next line of any kind brings this one to disk; lost, it costs a look at the machine and nothing else.
    public void Ends(int step) => Line(JournalText.Ends(step), flush: false);

    public void Undone(int step) => Line(JournalText.Undone(step), flush: false);

    public void Left(int step) => Line(JournalText.Left(step), flush: false);

    public void Closes(Outcome outcome) => Line(JournalText.Closes(outcome));

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
