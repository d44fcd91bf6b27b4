using System.IO.Pipes;
using System.Text;

namespace GpuHandoff.Linux.Tests;

public class OutputTests
{
    // A pipe has room for 64 KiB (fs/pipe.c, PIPE_DEF_BUFFERS pages).
    const int Room = 65536;

    static (AnonymousPipeServerStream Reader, int Writer) Pipe()
    {
        var reader = new AnonymousPipeServerStream(PipeDirection.In);
        return (reader, (int)reader.ClientSafePipeHandle.DangerousGetHandle());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(Room - 100)]
    [InlineData(Room)]
    public async Task A_line_longer_than_the_room_in_a_pipe_that_nobody_reads_is_cut_off_and_holds_nothing_up(int before)
    {
        var (reader, writer) = Pipe();
        using (reader)
        {
            var output = new Output(writer, mayMiss: true);
            output.Write(new string('a', before));
            var writing = Task.Run(() => output.Write(new string('b', 2 * Room)));
            // A write that waits does so until the end of this test, and fails it.
            (await Task.WhenAny(writing, Task.Delay(TimeSpan.FromMinutes(1)))).ShouldBe(writing);

            reader.DisposeLocalCopyOfClientHandle();
            var text = await new StreamReader(reader, Encoding.ASCII).ReadToEndAsync();
            text.ShouldStartWith(new string('a', before));
            text.Length.ShouldBeInRange(Room - 4096, Room);
        }
    }

    [Fact]
    public async Task A_reader_that_comes_late_gets_all_of_it_in_order()
    {
        var (reader, writer) = Pipe();
        using (reader)
        {
            var text = string.Concat(Enumerable.Range(0, 20000).Select(i => $"{i}…\n"));
            var output = new Output(writer, mayMiss: true);
            var writing = Task.Run(() => output.Write(text));
            var read = Task.Run(() => new StreamReader(reader, Encoding.UTF8).ReadToEnd());
            await writing;
            reader.DisposeLocalCopyOfClientHandle();
            (await read).ShouldBe(text);
        }
    }

    [Fact]
    public void Words_of_others_are_shown_and_not_obeyed_and_our_own_code_still_erases_a_line()
    {
        var (reader, writer) = Pipe();
        using (reader)
        {
            var output = new Output(writer, mayMiss: true);
            output.Write("evil \e]0;title\a\r\u009b2J\u2028\u202ex\n");
            output.EraseLine();
            reader.DisposeLocalCopyOfClientHandle();
            new StreamReader(reader, Encoding.UTF8).ReadToEnd().ShouldBe("evil \\x1b]0;title\\x07\\x0d\\x9b2J\\u2028\\u202ex\n\r\e[K");
        }
    }
}
