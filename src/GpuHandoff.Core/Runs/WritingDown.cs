using GpuHandoff.Machines;

namespace GpuHandoff.Runs;

/// <summary>The machine is what counts, and it is where the outcome says; a record that is left over, or missing, is looked at again next time.</summary>
static class WritingDown
{
    /// <summary>Writes into the ledger, and warns where that cannot be written.</summary>
    /// <param name="isDone">
    /// Whether the machine was changed, which is what is written down. Where it was not, nothing at all has been done: then the
    /// caller is refused.
    /// </param>
    public static void WriteDown(this IWitness witness, Action write, bool isDone = true)
    {
        try
        {
            write();
        }
        catch (LedgerRefused refused) when (isDone)
        {
            witness.Warns($"{refused.Message}; {refused.Hint}");
        }
    }

    /// <summary>Whether nobody who comes every few seconds has told it of this card yet; from here on somebody has.</summary>
    public static bool IsNews(this ILedger ledger, PciAddress gpu, string what)
    {
        try
        {
            if (ledger.IsTold(gpu, what))
                return false;
            ledger.KeepTold(gpu, what);
        }
        catch (LedgerRefused)
        {
            // Rather told too often than never.
        }
        return true;
    }
}
